"""Samplers: each term as often as promised, blocks with their weights, and given draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import reference as ref
import reference_sums as sums

import landingopt as lo
from landingopt import samplers
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Space

WithReplacement, Reshuffled = samplers.WithReplacement, samplers.Reshuffled
Cyclic, Replay = samplers.Cyclic, samplers.Replay


def unweighted(draws):
    """What ``BlockDraws.draw`` would be without its weight."""
    draws.block, _ = next(draws._order)
    draws.weight = 1.0
    return draws.partition.terms(draws.block)


def draws_of(sampler, n_terms, batch_size, number, blocks=False, seed=0):
    """(indices, weight, block) of the first draws."""
    run = sampler.start(n_terms, batch_size, np.random.default_rng(seed), blocks)
    result = []
    for _ in range(number):
        terms = run.draw()
        result.append((sums.indices(terms, n_terms), run.weight, run.block))
        assert samplers.count(terms) == len(result[-1][0])
    return result


RANDOM = {
    "with replacement": WithReplacement(),
    "with replacement, contiguous": WithReplacement(contiguous=True),
    "reshuffled": Reshuffled(),
    "reshuffled, contiguous": Reshuffled(contiguous=True),
}
RECIPES = RANDOM | {"cyclic": Cyclic(), "cyclic, scattered": Cyclic(contiguous=False)}

# (terms, batch, draws in a row): a batch that divides N, one that does not, all, one, nearly all.
SIZES = [(4, 2, 2), (4, 3, 2), (3, 2, 2), (4, 4, 1), (3, 1, 3), (5, 4, 1)]


# -- exact: every outcome of the generator, with its probability -------------------------------


def mean_weights(sampler, n_terms, batch_size, draws, blocks):
    """E[weight (mean over the draw)], as the coefficient of each term, for each of the draws."""
    total = np.zeros((draws, n_terms))
    probability = 0.0
    for rng in sums.Choices.every():
        run = sampler.start(n_terms, batch_size, rng, blocks)
        here = np.zeros((draws, n_terms))
        for k in range(draws):
            terms = sums.indices(run.draw(), n_terms)
            np.add.at(here[k], terms, run.weight / len(terms))
        total += rng.probability * here
        probability += rng.probability
    assert probability == pytest.approx(1.0)
    return total


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize(("n_terms", "batch_size", "draws"), SIZES)
def test_every_draw_is_unbiased(sampler, n_terms, batch_size, draws, blocks):
    """Each term counts 1/N on average, at the first draw and at those that follow."""
    if sampler == WithReplacement() and not blocks:
        draws = 1 if batch_size > 2 else draws  # they are independent, and the tree is wide
    mean = mean_weights(sampler, n_terms, batch_size, draws, blocks)
    np.testing.assert_allclose(mean, 1.0 / n_terms, rtol=1e-12)


@pytest.mark.parametrize("contiguous", [False, True])
def test_without_its_weight_an_unequal_block_is_biased(monkeypatch, contiguous):
    """The control: the check above sees a forgotten weight."""
    monkeypatch.setattr(samplers.BlockDraws, "draw", unweighted)
    mean = mean_weights(Reshuffled(contiguous), 4, 3, 1, True)
    if contiguous:
        np.testing.assert_allclose(mean[0], [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    # Blocks picked at random are unbiased over the partitions, though not within one of them.
    mean = mean_weights(Reshuffled(True), 4, 3, 1, False)
    assert abs(mean - 0.25).max() > 0.05


def mean_estimates(problem, estimator, xs):
    """E[estimate] at each of a fixed way of points, over all outcomes of the generator."""
    totals = [0.0] * len(xs)
    for rng in sums.Choices.every():
        space = Space(problem.shape, problem.constraint, xs[0])
        run = estimator.start(Oracle(problem, space, rng), False)
        here = []
        for x in xs:
            point = Point(space, [])
            point.place([x.copy()])
            run.fill(point)
            here.append(point.followed[0].copy())
        totals = [t + rng.probability * g for t, g in zip(totals, here, strict=True)]
    return totals


def problems(rng, n_terms):
    model = sums.linear_models(rng, n_terms, 4, 2)
    fun, grad = sums.of_terms(*model)
    return {
        "sum": lo.FiniteSum(fun, grad, n_terms=n_terms, shape=(4, 2)),
        "linear": lo.LinearModelSum(*model, p=2),
        "grad": grad,
    }


Saga, Svrg, MiniBatch = lo.estimators.Saga, lo.estimators.Svrg, lo.estimators.MiniBatch

# (which problem, the estimator of a batch size and a sampler)
ESTIMATORS = {
    "minibatch": ("sum", lambda b, s: MiniBatch(b, s)),
    "minibatch of linear models": ("linear", lambda b, s: MiniBatch(b, s)),
    "saga": ("sum", lambda b, s: Saga(b, s)),
    "saga, full table of linear models": ("linear", lambda b, s: Saga(b, s, structured=False)),
    "saga, structured": ("linear", lambda b, s: Saga(b, s)),
    "svrg": ("sum", lambda b, s: Svrg(b, s, inner=100)),
    "svrg with slopes": ("linear", lambda b, s: Svrg(b, s, inner=100)),
    "svrg without": ("linear", lambda b, s: Svrg(b, s, inner=100, max_bytes=0)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize(("n_terms", "batch_size"), [(4, 3), (3, 2), (3, 3), (3, 1)])
def test_estimates_are_unbiased_exactly(rng, name, sampler, n_terms, batch_size):
    """Over all draws the mean estimate is the full gradient, at every point of a way."""
    which, make = ESTIMATORS[name]
    given = problems(rng, n_terms)
    ahead = 0 if which == "sum" and name == "minibatch" else 1  # the first pass draws nothing
    draws = 1 if n_terms == 4 else 2
    # After the first draw of an order, what is left has not been seen again: SAGA's table knows, and
    # its estimates are unbiased over independent draws only.
    if "saga" in name and isinstance(sampler, Reshuffled):
        draws = 1
    xs = [ref.in_tube(rng, (4, 2), 0.3) for _ in range(draws + ahead)]
    means = mean_estimates(given[which], make(batch_size, sampler), xs)
    for x, mean in zip(xs, means, strict=True):
        full = given["grad"](x, np.arange(n_terms))
        np.testing.assert_allclose(mean, full, atol=1e-13)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_check_of_estimates_sees_a_bias(rng, name, monkeypatch):
    """The control: a weight left out, blocks of unequal size that come equally often."""
    monkeypatch.setattr(samplers.BlockDraws, "draw", unweighted)
    which, make = ESTIMATORS[name]
    given = problems(rng, 4)
    xs = [ref.in_tube(rng, (4, 2), 0.3) for _ in range(2)]
    means = mean_estimates(given[which], make(3, Reshuffled(contiguous=True)), xs)
    assert abs(means[1] - given["grad"](xs[1], np.arange(4))).max() > 1e-3


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("contiguous", [True, False])
def test_the_mean_over_a_cycle_is_the_full_gradient(rng, name, contiguous):
    """Cyclic draws nothing at random; from one and the same state, its draws average out."""
    which, make = ESTIMATORS[name]
    given = problems(rng, 5)
    problem, estimator = given[which], make(2, Cyclic(contiguous))
    blocks = name.startswith("saga") and "structured" not in name
    if blocks and not contiguous:
        return  # the table's blocks are scattered, and drawn in order: the case above
    cycle = 3 if contiguous else 5
    x0, x = ref.in_tube(rng, (4, 2), 0.3), ref.in_tube(rng, (4, 2), 0.3)
    total = 0.0
    for draw in range(cycle):
        space = Space(problem.shape, problem.constraint, x0)
        run = estimator.start(Oracle(problem, space, np.random.default_rng(0)), False)
        if not name.startswith("minibatch"):
            first = Point(space, [])
            first.place([x0.copy()])
            run.fill(first)
        for _ in range(draw):
            run.draws.draw()
        point = Point(space, [])
        point.place([x.copy()])
        run.fill(point)
        total = total + point.followed[0] / cycle
    np.testing.assert_allclose(total, given["grad"](x, np.arange(5)), atol=1e-13)


# -- orders, blocks and slices ----------------------------------------------------------------


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize(("n_terms", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 1)])
def test_reshuffled_sees_each_term_once_an_epoch(n_terms, batch_size, contiguous):
    if contiguous:
        number = -(-n_terms // batch_size)
        for start in (0, number):
            drawn = draws_of(Reshuffled(True), n_terms, batch_size, 2 * number)
            seen = np.concatenate([terms for terms, *_ in drawn[start : start + number]])
            assert sorted(seen) == list(range(n_terms))
    else:
        drawn = draws_of(Reshuffled(), n_terms, batch_size, 4 * n_terms)
        assert {len(terms) for terms, *_ in drawn} == {batch_size}
        seen = np.concatenate([terms for terms, *_ in drawn])
        orders = [seen[i : i + n_terms] for i in range(0, len(seen) - n_terms + 1, n_terms)]
        assert all(sorted(order) == list(range(n_terms)) for order in orders)
        if n_terms > 4:
            assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("sampler", RECIPES.values(), ids=RECIPES)
def test_blocks_are_cut_once(sampler):
    """With blocks, a number stands for the same terms each time, and all terms have one."""
    drawn = draws_of(sampler, 11, 4, 200, blocks=True)
    blocks = {block: tuple(terms) for terms, _, block in drawn}
    assert all(blocks[block] == tuple(terms) for terms, _, block in drawn)
    assert sorted(i for terms in blocks.values() for i in terms) == list(range(11))
    assert sorted(len(terms) for terms in blocks.values()) == [3, 4, 4]
    consecutive = all(np.all(np.diff(terms) == 1) for terms in blocks.values())
    assert consecutive == sampler.contiguous


@pytest.mark.parametrize("sampler", RECIPES.values(), ids=RECIPES)
def test_contiguous_samplers_give_slices(sampler):
    run = sampler.start(11, 4, np.random.default_rng(0))
    assert isinstance(run.draw(), slice if sampler.contiguous else np.ndarray)


def test_weights_of_unequal_blocks():
    """B n_b / N where blocks come equally often, 1 where they come as often as their size says."""
    for terms, weight, _ in draws_of(Reshuffled(True), 11, 4, 30):
        assert weight == pytest.approx(3 * len(terms) / 11)
    assert {w for _, w, _ in draws_of(Reshuffled(), 11, 4, 30)} == {1.0}
    assert {w for _, w, _ in draws_of(Reshuffled(True), 12, 4, 30)} == {1.0}
    drawn = draws_of(WithReplacement(True), 11, 4, 20_000)
    assert {w for _, w, _ in drawn} == {1.0}
    shares = Counter(block for _, _, block in drawn)
    assert shares[2] / 20_000 == pytest.approx(3 / 11, abs=0.015)


def test_cyclic_goes_around_in_order():
    slices = [terms.tolist() for terms, *_ in draws_of(Cyclic(), 7, 3, 4)]
    assert slices == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]
    assert [w for _, w, _ in draws_of(Cyclic(), 7, 3, 3)] == pytest.approx([9 / 7, 9 / 7, 3 / 7])
    scattered = [terms.tolist() for terms, *_ in draws_of(Cyclic(contiguous=False), 7, 3, 4)]
    assert scattered == [[0, 1, 2], [3, 4, 5], [6, 0, 1], [2, 3, 4]]


@pytest.mark.parametrize("sampler", RANDOM.values(), ids=RANDOM)
def test_the_generator_decides(sampler):
    def named(seed):
        return [terms.tolist() for terms, *_ in draws_of(sampler, 20, 3, 30, seed=seed)]

    before = np.random.get_state()[1].copy()
    assert named(0) == named(0)
    assert named(0) != named(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_draw_that_the_user_changes_does_no_harm():
    """A gradient that sorts or shifts its indices in place must not change later draws."""
    run = Cyclic(contiguous=False).start(6, 2, np.random.default_rng(0))
    seen = []
    for _ in range(6):
        terms = run.draw()
        seen.append(terms.tolist())
        if terms.flags.writeable:
            terms[:] = 0
    assert seen == [[0, 1], [2, 3], [4, 5]] * 2


# -- given draws ------------------------------------------------------------------------------


def test_replay_gives_what_it_was_given():
    replay = Replay([slice(0, 2), [3, 1, 3], np.array([4]), 1])
    drawn = draws_of(replay, 6, 4, 4)
    assert [terms.tolist() for terms, *_ in drawn] == [[0, 1], [3, 1, 3], [4], [4, 5]]
    assert {weight for _, weight, _ in drawn} == {1.0}
    blocks = draws_of(Replay([1, 0, 1]), 6, 4, 3, blocks=True)
    assert [(terms.tolist(), w, b) for terms, w, b in blocks] == [
        ([4, 5], 1.0, 1),
        ([0, 1, 2, 3], 1.0, 0),
        ([4, 5], 1.0, 1),
    ]


def test_replays_compare_and_keep_their_own_copy():
    given = np.array([1, 2])
    replay = Replay([given, slice(None, 3)])
    given[:] = 0
    assert replay == Replay([[1, 2], slice(0, 3)])
    assert hash(replay) == hash(Replay([[1, 2], slice(0, 3)]))
    assert replay != Replay([[1, 2], slice(0, 2)])
    assert repr(replay) == "Replay(2 draws)"
    assert Cyclic() == Cyclic(True) and Cyclic() != Cyclic(False)


@pytest.mark.parametrize(
    ("draws", "error", "words"),
    [
        ([], ValueError, "at least one draw"),
        ([slice(0, 6, 2)], ValueError, "step 1"),
        ([slice(3, 3)], ValueError, "start < stop"),
        ([slice(0, None)], ValueError, "start < stop"),
        ([[-1, 2]], TypeError, "indices of terms >= 0"),
        ([-1], TypeError, "a draw is"),
        ([True], TypeError, "a draw is"),
        ([[0.5]], TypeError, "a draw is"),
        ([[[0, 1]]], TypeError, "a draw is"),
        ([[]], TypeError, "a draw is"),
        (["all"], TypeError, "a draw is"),
    ],
)
def test_replay_refuses_what_is_no_draw(draws, error, words):
    with pytest.raises(error, match=words):
        Replay(draws)


@pytest.mark.parametrize(
    ("draws", "blocks", "error", "words"),
    [
        ([slice(0, 11)], False, ValueError, "draw 0 names term 10; there are 10"),
        ([[0], [3, 10]], False, ValueError, "draw 1 names term 10; there are 10"),
        ([0, 3], False, ValueError, "draw 1 names block 3; there are 3"),
        ([0, 3], True, ValueError, "draw 1 names block 3; there are 3"),
        ([0, [1, 2]], True, TypeError, r"numbers of blocks, 0\.\.2, and draw 1"),
    ],
)
def test_replay_refuses_what_the_sum_does_not_have(draws, blocks, error, words):
    with pytest.raises(error, match=words):
        Replay(draws).start(10, 4, np.random.default_rng(0), blocks)


def test_a_replay_that_is_used_up_says_so(rng):
    _, grad = sums.quadratics(rng, 8, (4, 2))
    problem = lo.FiniteSum(None, grad, n_terms=8, shape=(4, 2))
    for draws in ([0, 1], [[0, 1], slice(2, 5)]):
        method = lo.landing_sgd(0.01, batch_size=4, sampler=Replay(draws))
        with pytest.raises(ValueError, match="the 2 draws of Replay are used up"):
            lo.minimize(problem, method=method, rng=0)


# -- recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Reshuffled, "reshuffled", 3, np.random.default_rng(0)])
@pytest.mark.parametrize("method", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_a_sampler_is_a_recipe(method, sampler):
    with pytest.raises(TypeError, match=r"sampler must be a recipe such as lo\.samplers"):
        method(0.1, sampler=sampler)


def test_a_sampler_of_ones_own(rng):
    """Any class with ``start`` and ``contiguous``."""

    class FirstHalf:
        contiguous = True

        def start(self, n_terms, batch_size, rng, blocks=False):
            return Replay([slice(0, n_terms // 2)] * 4).start(n_terms, batch_size, rng, blocks)

    _, grad = sums.quadratics(rng, 8, (4, 2))
    problem = lo.FiniteSum(None, grad, n_terms=8, shape=(4, 2))
    method = lo.landing_sgd(0.05, sampler=FirstHalf(), tangent=lo.fields.Canonical())
    x0 = ref.in_tube(rng, (4, 2), 0.2)
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(3))
    expected = sums.descent(lambda x: grad(x, slice(0, 4)), x0, 0.05, steps=3)
    np.testing.assert_allclose(result.x, expected[-1], atol=1e-13)
