"""Stochastic methods: whole runs against naive ones on given samples, what is counted, and steps."""

from __future__ import annotations

import math
import re
import tracemalloc

import numpy as np
import pytest
import reference as ref
import reference_sums as sums
from test_trajectories import assert_close, run

import landingopt as lo

MiniBatch, Saga, Svrg = lo.estimators.MiniBatch, lo.estimators.Saga, lo.estimators.Svrg
Momentum = lo.estimators.Momentum
Replay = lo.samplers.Replay

N, B, STEPS = 11, 3, 40  # blocks of 3, 3, 3 and 2 terms


def picks(rng, n_terms=N, number=STEPS):
    """Slices, and indices of unequal numbers of terms, some named twice."""
    draws = []
    for k in range(number):
        start = int(rng.integers(n_terms - 3))
        several = rng.integers(n_terms, size=int(rng.integers(1, 5)))
        draws.append(slice(start, start + int(rng.integers(1, 4))) if k % 3 == 0 else several)
    return draws


def listed(draws, n_terms=N):
    return [sums.indices(terms, n_terms) for terms in draws]


def numbers(rng, number=STEPS):
    return rng.integers(4, size=number).tolist()


class Case:
    """A sum with its gradient over indices, a start, and what limits the steps."""

    def __init__(self, rng, shape=(9, 4), dtype="float64", limited="wanted"):
        scale, self.step, self.lam, self.eps, d = {
            "wanted": (0.3, 0.08, 1.0, 0.5, 0.3),
            "the bound": (30.0, 0.5, 1.0, 0.5, 0.3),
            "the cap": (0.01, 9.0, 1.0, 0.5, 0.4),
        }[limited]
        fun, self.grad = sums.quadratics(rng, N, shape, dtype, scale)
        self.problem = lo.FiniteSum(fun, self.grad, n_terms=N, shape=shape)
        self.x0 = ref.in_tube(rng, shape, d, dtype)

    def naive(self, estimate, steps=STEPS, **options):
        return sums.descent(
            estimate, self.x0, self.step, self.lam, self.eps, steps=steps, **options
        )

    def method(self, estimator):
        return lo.landing(self.step, lam=self.lam, eps=self.eps, base=estimator)

    def run(self, estimator, steps=STEPS):
        return run(self.problem, self.x0, self.method(estimator), steps)[0]


LIMITS = ["wanted", "the bound", "the cap"]
everywhere = pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 6), "float64"), ((9, 4), "float64"), ((6, 6), "complex128"), ((9, 4), "complex128")],
)


def known_steps(limited):
    """Far beyond descent rounding is amplified: the first steps tell."""
    return 12 if limited == "the bound" else STEPS


# -- ten lines --------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("limited", LIMITS)
def test_sgd_is_ten_lines(rng, shape, dtype, limited):
    case = Case(rng, shape, dtype, limited)
    draws = picks(rng)
    expected = case.naive(sums.sgd(case.grad, listed(draws)))
    count = known_steps(limited)
    xs = case.run(MiniBatch(B, Replay(draws)))
    assert_close(xs[:count], expected[:count], 1e-11)
    assert max(ref.distance(x) for x in xs) <= case.eps * (1 + 1e-13)


@everywhere
@pytest.mark.parametrize("limited", LIMITS)
def test_saga_is_ten_lines(rng, shape, dtype, limited):
    """The full table; the last block is smaller."""
    case = Case(rng, shape, dtype, limited)
    draws = numbers(rng)
    estimate = sums.saga(case.grad, sums.partition(N, B), draws)
    expected = case.naive(estimate)
    count = known_steps(limited)
    assert_close(case.run(Saga(B, Replay(draws)))[:count], expected[:count], 1e-11)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_unequal_blocks_that_come_equally_often_are_weighted(rng, shape):
    """Cyclic's last slice is smaller: SGD, SAGA and SVRG multiply what it says."""
    case = Case(rng, shape)
    cyclic = lo.samplers.Cyclic()
    blocks = sums.partition(N, B)
    order = list(range(4)) * STEPS
    expected = case.naive(sums.saga(case.grad, blocks, order, weighted=True))
    assert_close(case.run(Saga(B, cyclic)), expected, 1e-12)

    def weighted(x, terms):  # the reference gives slices; the weight goes with their length
        return 4 * len(terms) / N * case.grad(x, terms)

    expected = case.naive(sums.sgd(weighted, [blocks[b] for b in order]))
    assert_close(case.run(MiniBatch(B, cyclic)), expected, 1e-12)

    def change(x, terms):
        return case.grad(x, terms) if len(terms) == N else weighted(x, terms)

    expected = case.naive(sums.svrg(change, N, [blocks[b] for b in order], round(2 * N / B)))
    assert_close(case.run(Svrg(B, cyclic, inner=2)), expected, 1e-12)


@everywhere
@pytest.mark.parametrize("limited", LIMITS)
def test_svrg_is_ten_lines(rng, shape, dtype, limited):
    """With a fixed number of minibatches from anchor to anchor."""
    case = Case(rng, shape, dtype, limited)
    draws = picks(rng)
    count = known_steps(limited)
    for inner, minibatches in ((1.0, 4), (2.5, 9), (0.1, 1)):
        expected = case.naive(sums.svrg(case.grad, N, listed(draws), minibatches))
        xs = case.run(Svrg(B, Replay(draws), inner=inner))
        assert_close(xs[:count], expected[:count], 1e-11)


@everywhere
def test_svrg_moves_its_anchor_when_the_way_turns(rng, shape, dtype):
    """The rule of its own: both ends of a way occur, the turn and two passes' worth."""
    ends = set()
    for step in (0.02, 0.6, 0.6, 0.6, 0.6):
        case = Case(rng, shape, dtype)
        case.step = step
        draws = [rng.integers(N, size=1) for _ in range(121)]
        estimate = sums.svrg(case.grad, N, draws, 2 * N, sums.turned)
        lengths = []

        def watched(x, estimate=estimate, lengths=lengths):
            before = len(estimate.way)
            g = estimate(x)
            if len(estimate.way) == 1 and before:
                lengths.append(before)
            return g

        expected = case.naive(watched, steps=120)
        assert_close(case.run(Svrg(1, Replay(draws)), steps=120), expected, 1e-11)
        ends |= set(lengths)
    assert 2 * N + 1 in ends and ends & {8, 16}


def test_loopless_svrg_moves_its_anchor_by_a_coin(rng):
    """With probability 1/m at each step, by the generator that was given."""
    case = Case(rng)
    draws = picks(rng)
    for inner, m in ((None, round(N / B)), (2.0, round(2 * N / B))):
        coins = np.random.default_rng(5)
        estimate = sums.svrg(
            case.grad, N, listed(draws), math.inf, lambda x, way, c=coins, m=m: c.random() < 1 / m
        )
        expected = case.naive(estimate)
        method = case.method(Svrg(B, Replay(draws), inner=inner, loopless=True))
        xs, _ = run(case.problem, case.x0, method, STEPS, rng=5)
        assert_close(xs, expected, 1e-12)
    drawn = np.random.default_rng(5).random(STEPS)
    assert 3 < np.sum(drawn < 1 / m) < STEPS / 2


MODELS = [(9, 4, "float64"), (6, 6, "float64"), (9, 4, "complex128"), (4, 7, "float64")]


@pytest.mark.parametrize(("n", "p", "dtype"), MODELS)
def test_the_structured_table_is_a_table_of_terms(rng, n, p, dtype):
    """Also where a draw names a term twice: its entry changes once."""
    phi, dphi, data = sums.linear_models(rng, N, n, p, dtype)
    _, grad = sums.of_terms(phi, dphi, data)
    problem = lo.LinearModelSum(phi, dphi, data, p=p)
    x0 = ref.in_tube(rng, (n, p), 0.3, dtype)
    turn = ref.H if n < p else lambda a: a
    draws = picks(rng)
    assert any(len(set(terms)) < len(terms) for terms in listed(draws))
    estimate = sums.saga_of_terms(lambda x, terms: turn(grad(turn(x), terms)), N, listed(draws))
    expected = sums.descent(estimate, turn(x0), 0.1, steps=STEPS)
    xs, _ = run(problem, x0, lo.landing(0.1, base=Saga(B, Replay(draws))), STEPS)
    assert_close([turn(x) for x in xs], expected, 1e-11)


@pytest.mark.parametrize(("n", "p", "dtype"), MODELS)
def test_both_tables_give_one_trajectory(rng, n, p, dtype):
    """Fed the same draws: blocks, or blocks of one term."""
    problem = lo.LinearModelSum(*sums.linear_models(rng, N, n, p, dtype), p=p)
    x0 = ref.in_tube(rng, (n, p), 0.3, dtype)
    for size, blocks in ((B, 4), (1, N)):
        draws = Replay(rng.integers(blocks, size=STEPS + 1).tolist())
        both = [
            run(problem, x0, lo.landing(0.1, base=Saga(size, draws, structured=s)), STEPS)[0]
            for s in (True, False)
        ]
        assert_close(*both, 1e-12)


@pytest.mark.parametrize(("n", "p", "dtype"), MODELS)
def test_svrg_of_linear_models(rng, n, p, dtype):
    """With the slopes kept and without, the same as of the functions of terms."""
    phi, dphi, data = sums.linear_models(rng, N, n, p, dtype)
    fun, grad = sums.of_terms(phi, dphi, data)
    linear = lo.LinearModelSum(phi, dphi, data, p=p, chunk_terms=4)
    plain = lo.FiniteSum(fun, grad, n_terms=N, shape=(n, p))
    x0 = ref.in_tube(rng, (n, p), 0.3, dtype)
    draws = Replay(picks(rng))
    for inner in (1.0, None):
        expected, _ = run(plain, x0, lo.landing(0.1, base=Svrg(B, draws, inner)), STEPS)
        for limit in (2**20, 0):
            estimator = Svrg(B, draws, inner, max_bytes=limit)
            xs, _ = run(linear, x0, lo.landing(0.1, base=estimator), STEPS)
            assert_close(xs, expected, 1e-12)


def naive_estimates(grad, n_terms, rng):
    """{name: (a naive estimate, the estimator)} on the same draws."""
    several, blocks = picks(rng, n_terms), numbers(rng)
    return {
        "sgd": (sums.sgd(grad, listed(several)), MiniBatch(B, Replay(several))),
        "saga": (
            sums.saga(grad, sums.partition(n_terms, B), blocks),
            Saga(B, Replay(blocks)),
        ),
        "svrg": (
            sums.svrg(grad, n_terms, listed(several), round(1.5 * n_terms / B)),
            Svrg(B, Replay(several), inner=1.5),
        ),
    }


NAMES = ["sgd", "saga", "svrg"]


@pytest.mark.parametrize("name", NAMES)
def test_momentum_around_an_estimate(rng, name):
    case = Case(rng)
    estimate, estimator = naive_estimates(case.grad, N, rng)[name]
    expected = case.naive(estimate, beta=0.7)
    assert_close(case.run(Momentum(0.7, base=estimator)), expected, 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_presets_are_the_landing_of_their_estimator(rng, name):
    case = Case(rng)
    _, estimator = naive_estimates(case.grad, N, rng)[name]
    if name == "svrg":
        estimator = Svrg(B, estimator.sampler)
    preset = {"sgd": lo.landing_sgd, "saga": lo.landing_saga, "svrg": lo.landing_svrg}[name]
    options = dict(lam=0.7, eps=0.4, batch_size=B, sampler=estimator.sampler)
    for beta in (0.0, 0.6):
        base = Momentum(beta, base=lo.estimators.Tangent(base=estimator)) if beta else estimator
        for tangent in (None, lo.fields.Canonical()):
            wanted = lo.fields.NearTangent() if tangent is None else tangent
            method = lo.landing(0.05, lam=0.7, eps=0.4, base=base, tangent=wanted)
            expected, _ = run(case.problem, case.x0, method, STEPS)
            method = preset(0.05, momentum=beta, tangent=tangent, **options)
            xs, result = run(case.problem, case.x0, method, STEPS)
            assert_close(xs, expected, 0.0)
        assert result.method.name == f"landing_{name}(step=0.05, lam=0.7)"


@pytest.mark.parametrize("beta", [0.0, 0.6])
@pytest.mark.parametrize("name", NAMES)
def test_a_product_of_blocks(rng, name, beta):
    """Each block its own safe step, one sample for all."""
    fun, grad = sums.product(rng, N)
    shape = {"W": (7, 4), "b": (3,)}
    constraint = {"W": lo.Stiefel(), "b": lo.Euclidean()}
    x0 = {"W": ref.in_tube(rng, (7, 4), 0.3), "b": ref.gaussian(rng, (3,))}
    estimate, estimator = naive_estimates(lambda x, t: sums.Blocks(grad(x, t)), N, rng)[name]
    expected = sums.descent(estimate, sums.Blocks(x0), 0.1, beta=beta, steps=STEPS)
    estimator = Momentum(beta, base=estimator) if beta else estimator
    problem = lo.FiniteSum(fun, grad, n_terms=N, shape=shape, constraint=constraint)
    xs, _ = run(problem, x0, lo.landing(0.1, base=estimator), STEPS)
    for key in shape:
        assert_close([x[key] for x in xs], [x[key] for x in expected], 1e-12)
    chunked = lo.FiniteSum(
        lambda x, t: fun(dict(zip("Wb", x, strict=True)), t),
        lambda x, t: tuple(grad(dict(zip("Wb", x, strict=True)), t).values()),
        n_terms=N,
        shape=tuple(shape.values()),
        constraint=tuple(constraint.values()),
        chunk_terms=4,
    )
    ys, _ = run(chunked, tuple(x0.values()), lo.landing(0.1, base=estimator), STEPS)
    for i, key in enumerate(shape):
        assert_close([y[i] for y in ys], [x[key] for x in xs], 1e-12)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 2, 7, 4), (3, 4, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_a_stack_of_matrices(rng, name, shape, coupled):
    """Each matrix its own safe step, one sample for all; separable or not."""
    fun, grad = sums.quadratics(rng, N, shape)
    scales = np.geomspace(0.1, 30.0, int(np.prod(shape[:-2]))).reshape(*shape[:-2], 1, 1)

    def scaled(x, terms):
        return scales * grad(x, terms)

    def value(x, terms):
        values = scales[..., 0, 0] * fun(x, terms)
        return float(values.sum()) if coupled else values

    x0 = ref.in_tube(rng, shape, 0.3)
    turn = ref.H if shape[-2] < shape[-1] else lambda a: a
    estimate, estimator = naive_estimates(lambda x, t: turn(scaled(turn(x), t)), N, rng)[name]
    expected = sums.descent(estimate, turn(x0), 0.2, steps=15)
    problem = lo.FiniteSum(value, scaled, n_terms=N, shape=shape)
    xs, result = run(problem, x0, lo.landing(0.2, base=estimator), 15)
    assert_close([turn(x) for x in xs], expected, 1e-9)
    assert np.shape(result.fun) == (() if coupled else shape[:-2])


@pytest.mark.parametrize("name", NAMES)
def test_a_wide_matrix_is_its_transpose(rng, name):
    for dtype in ("float64", "complex128"):
        case = Case(rng, (9, 4), dtype)
        _, estimator = naive_estimates(case.grad, N, rng)[name]
        wide = lo.FiniteSum(
            lambda x, t, p=case.problem: p.fun_terms(ref.H(x), t),
            lambda x, t, p=case.problem: ref.H(p.grad_terms(ref.H(x), t)),
            n_terms=N,
            shape=(4, 9),
        )
        ys, result = run(wide, ref.H(case.x0).copy(), case.method(estimator), STEPS)
        assert_close([ref.H(y) for y in ys], case.run(estimator), 1e-12)
        assert result.x.shape == (4, 9)


# -- every library ----------------------------------------------------------------------------


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_every_library(arrays, rng, dtype, scattered):
    """The same iterates from the same seed; results of the library that the start is of."""
    if scattered and arrays.name == "strict-device1":
        pytest.skip("array_api_strict takes no index arrays of another device")
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    draws = picks(rng) if scattered else numbers(rng)
    for shape in [(6, 6), (7, 3), (3, 7)]:
        fun, grad = sums.quadratics(rng, N, shape, dtype)
        x0 = ref.in_tube(rng, shape, 0.3, dtype)
        here = lo.FiniteSum(fun, grad, n_terms=N, shape=shape)
        there = lo.FiniteSum(
            lambda x, t, f=fun: float(f(arrays.host(x), t)),
            lambda x, t, g=grad: arrays.to(g(arrays.host(x), t).astype(dtype)),
            n_terms=N,
            shape=shape,
        )
        estimators = [MiniBatch(B, Replay(draws)), Svrg(B, Replay(draws), inner=1)]
        estimators += [] if scattered else [Saga(B, Replay(draws))]
        for estimator in estimators:
            method = lo.landing(0.1, base=Momentum(0.5, base=estimator))
            expected, _ = run(here, x0, method, 8)
            xs, result = run(there, arrays.to(x0), method, 8)
            assert_close(xs, expected, tolerance)
            assert arrays.host(result.x).dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_linear_models_in_every_library(arrays, rng, dtype):
    phi, dphi, data = sums.linear_models(rng, N, 7, 3, dtype)
    here = lo.LinearModelSum(phi, dphi, data, p=3)
    there = lo.LinearModelSum(
        lambda u, t: arrays.to(phi(arrays.host(u), t)),
        lambda u, t: arrays.to(dphi(arrays.host(u), t).astype(dtype)),
        arrays.to(data),
        p=3,
        chunk_terms=4,
    )
    x0 = ref.in_tube(rng, (7, 3), 0.3, dtype)
    # array_api_strict has no table that is written at scattered places.
    draws = numbers(rng) if arrays.name.startswith("strict") else picks(rng)
    for estimator in (
        MiniBatch(B, Replay(draws)),
        Saga(B, Replay(draws)),
        Svrg(B, Replay(draws)),
        Svrg(B, Replay(draws), max_bytes=0),
        lo.estimators.Full(),
    ):
        method = lo.landing(0.1, base=estimator)
        expected, _ = run(here, x0, method, 8)
        xs, result = run(there, arrays.to(x0), method, 8)
        assert_close(xs, expected, 1e-4 if dtype == "float32" else 1e-11)
        assert arrays.host(result.x).dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_default_methods_in_every_library(arrays, rng, dtype):
    """The curvature too is measured where the data lives, with the same result."""
    phi, dphi, data = sums.linear_models(rng, 60, 7, 3, dtype)
    here = lo.LinearModelSum(phi, dphi, data, p=3)
    there = lo.LinearModelSum(
        lambda u, t: arrays.to(phi(arrays.host(u), t)),
        lambda u, t: arrays.to(dphi(arrays.host(u), t).astype(dtype)),
        arrays.to(data),
        p=3,
    )
    sampler = lo.samplers.Reshuffled(contiguous=True)
    x0 = ref.orthonormal(rng, (7, 3), dtype)
    for preset in (lo.landing_sgd, lo.landing_saga, lo.landing_svrg):
        method = preset(batch_size=8, sampler=sampler)
        expected = lo.minimize(here, x0, method, stop=lo.MaxEpochs(3), rng=1)
        result = lo.minimize(there, arrays.to(x0), method, stop=lo.MaxEpochs(3), rng=1)
        same = 1e-6 if dtype == "float64" else 0.02
        assert result.method.lam == pytest.approx(expected.method.lam, rel=same)
        np.testing.assert_allclose(arrays.host(result.x), expected.x, atol=10 * same)


# -- what is counted --------------------------------------------------------------------------


def counting(rng, shape=(6, 3), n_terms=20, **options):
    """A sum that counts the terms of the calls of its functions."""
    fun, grad = sums.quadratics(rng, n_terms, shape, easy=True)
    calls = {"fun": [], "grad": []}

    def counted(name, function):
        def called(x, terms):
            calls[name].append(len(sums.indices(terms, n_terms)))
            return function(x, terms)

        return called

    problem = lo.FiniteSum(
        counted("fun", fun), counted("grad", grad), n_terms=n_terms, shape=shape, **options
    )
    return problem, calls


def epochs(problem, estimator, steps, **options):
    method = lo.landing(0.01, base=estimator)
    result = lo.minimize(
        problem, method=method, stop=lo.MaxIterations(steps), record=lo.Every(1), rng=0, **options
    )
    return result.trace["epoch"], result


def test_epochs_of_sgd(rng):
    """b/N a step: k steps draw k minibatches."""
    problem, _ = counting(rng)
    for size in (1, 3, 20):
        seen, result = epochs(problem, MiniBatch(size), 12)
        np.testing.assert_allclose(seen, size / 20 * np.arange(13), rtol=1e-13)
        assert result.njev == 12 and result.nfev == 0
    seen, _ = epochs(problem, MiniBatch(8, lo.samplers.Cyclic()), 4)
    np.testing.assert_allclose(seen, np.cumsum([0, 8, 8, 4, 8]) / 20, rtol=1e-13)


def test_epochs_of_saga(rng):
    """One for the first pass, then b/N."""
    problem, _ = counting(rng)
    steps = np.array([0, 1, *[0.25] * 11])
    seen, _ = epochs(problem, Saga(5), 12)
    np.testing.assert_allclose(seen, np.cumsum(steps), rtol=1e-13)
    seen, _ = epochs(problem, Saga(8, Replay([0, 2, 1, 2])), 5)
    np.testing.assert_allclose(seen, np.cumsum([0, 20, 8, 4, 8, 4]) / 20, rtol=1e-13)
    linear = lo.LinearModelSum(*sums.linear_models(rng, 20, 6, 3), p=3, chunk_terms=7)
    seen, result = epochs(linear, Saga(5), 12)
    np.testing.assert_allclose(seen, np.cumsum(steps), rtol=1e-13)
    assert result.njev == 12


def test_epochs_of_svrg(rng):
    """One for an anchor; for a step two minibatches, or one where the slopes are kept."""
    problem, _ = counting(rng)
    linear = lo.LinearModelSum(*sums.linear_models(rng, 20, 6, 3), p=3)
    for which, limit, each in ((problem, 2**20, 2), (linear, 0, 2), (linear, 2**20, 1)):
        seen, _ = epochs(which, Svrg(5, inner=1.0, max_bytes=limit), 12)
        steps = [0, *[1, *[each / 4] * 4] * 3]
        np.testing.assert_allclose(seen, np.cumsum(steps)[:13], rtol=1e-13)


@pytest.mark.parametrize(
    "estimator", [MiniBatch(3), Saga(3), Svrg(3), Svrg(3, inner=1), Svrg(3, loopless=True)]
)
def test_what_is_counted_is_what_was_called(rng, estimator):
    """Epochs are the terms of all calls of the gradient, over N; the observer's are left out."""
    problem, calls = counting(rng)
    method = lo.landing(0.01, base=estimator)
    for steps in (0, 1, 30):
        calls["grad"].clear()
        stop = lo.MaxIterations(steps)
        alone = lo.minimize(
            problem, method=method, stop=stop, record=lo.EveryEpoch(full=False), rng=0
        )
        assert calls["grad"][:4] == [3, 1, 1, 1]  # is it a mean? Three terms, and one by one
        assert alone.trace["epoch"][-1] == pytest.approx(sum(calls["grad"][4:]) / 20, rel=1e-13)
        # Whoever looks on pays for it: a gradient that was measured is not the method's.
        for record in (lo.Every(1), lo.EveryEpoch(), lo.EveryEpoch(0.1)):
            seen = lo.minimize(problem, method=method, stop=stop, record=record, rng=0)
            np.testing.assert_array_equal(seen.x, alone.x)
            assert (seen.njev, seen.nfev) == (alone.njev, 0)
            assert seen.trace["epoch"][-1] == alone.trace["epoch"][-1]


@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_the_curvature_is_counted(rng, preset):
    """8 minibatches, 4 gradients of each; of a short sum fewer."""
    for n_terms, size, batches in ((200, 5, 8), (60, 5, 3), (20, 5, 1)):
        problem, calls = counting(rng, n_terms=n_terms)
        method = preset(batch_size=size)
        result = lo.minimize(
            problem, method=method, stop=lo.MaxIterations(1), record=lo.EveryEpoch(full=False)
        )
        assert result.trace["epoch"][-1] == pytest.approx(
            sum(calls["grad"][4:]) / n_terms, rel=1e-13
        )
        measured = 4 * (batches * size / n_terms if batches > 1 else 1.0)
        first = size / n_terms if preset is lo.landing_sgd else 1.0
        np.testing.assert_allclose(
            result.trace["epoch"][[0, -1]], [measured, measured + first], rtol=1e-13
        )


def test_max_epochs_ends_at_the_first_step_at_or_beyond(rng):
    problem, _ = counting(rng)
    for limit, steps in ((2, 8), (2.1, 9), (0, 0), (0.25, 1), (0.3, 2), (1.75, 7)):
        result = lo.minimize(
            problem,
            method=lo.landing_sgd(0.01, batch_size=5),
            stop=lo.MaxEpochs(limit),
            record=lo.Every(1000),
        )
        assert result.nit == steps
        assert result.status.name == "MAX_EPOCHS"
        assert result.trace["iteration"].tolist() == sorted({0, steps})
    result = lo.minimize(problem, method=lo.landing(0.01), stop=lo.MaxEpochs(4))
    assert result.nit == 3 and result.trace["epoch"][-1] == 4
    for bad in (-1, math.nan, "3", True):
        with pytest.raises((TypeError, ValueError)):
            lo.MaxEpochs(bad)


# -- the record -------------------------------------------------------------------------------


def test_rows_at_whole_epochs(rng):
    """The first step at or beyond each mark; the first and the last iterate always."""
    problem, _ = counting(rng)
    method = lo.landing_sgd(0.01, batch_size=3)
    for every in (1, 0.5, 0.25, 3):
        result = lo.minimize(
            problem, method=method, stop=lo.MaxEpochs(6.2), record=lo.EveryEpoch(every)
        )
        all_epochs = 3 / 20 * np.arange(43)
        marks = {0, 42}
        for mark in np.arange(every, 6.2, every):
            marks.add(int(np.argmax(all_epochs >= mark - 1e-9)))
        assert result.trace["iteration"].tolist() == sorted(marks)
        np.testing.assert_allclose(
            result.trace["epoch"], all_epochs[result.trace["iteration"]], rtol=1e-13
        )


def test_rows_where_a_mark_is_met_exactly(rng):
    """Quarters that steps of 1/20 meet to rounding are neither missed nor doubled."""
    problem, _ = counting(rng)
    method = lo.landing_sgd(0.01, batch_size=1)
    result = lo.minimize(problem, method=method, stop=lo.MaxEpochs(5), record=lo.EveryEpoch(1 / 4))
    assert result.trace["iteration"].tolist() == [*range(0, 101, 5)]
    thirds = lo.minimize(problem, method=method, stop=lo.MaxEpochs(4), record=lo.EveryEpoch(1 / 10))
    assert thirds.trace["iteration"].tolist() == [*range(0, 81, 2)]


def test_every_epoch_with_a_full_gradient(rng):
    """Then an epoch is an iteration of an open loop."""
    problem, _ = counting(rng)
    result = lo.minimize(
        problem, method=lo.landing(0.01), stop=lo.MaxIterations(9), record=lo.EveryEpoch(2)
    )
    assert result.trace["epoch"].tolist() == [1, 2, 4, 6, 8, 10]
    searched = lo.minimize(problem, method=lo.landing(), record=lo.EveryEpoch(2), rng=0)
    assert searched.success
    assert np.all(np.diff(searched.trace["epoch"]) > 0)


def test_the_defaults_of_a_stochastic_run(rng):
    """20 epochs and a row at each; nothing is said of a gradient norm."""
    problem, _ = counting(rng)
    result = lo.minimize(problem, method=lo.landing_sgd(0.01, batch_size=2), rng=0)
    assert result.status.name == "MAX_EPOCHS"
    assert "added" not in result.message
    np.testing.assert_allclose(result.trace["epoch"], np.arange(21), rtol=1e-12)


def test_tol_and_rules_with_and_without_a_limit(rng):
    problem, _ = counting(rng)
    method = lo.landing_svrg(0.2, batch_size=2)
    tight = lo.minimize(problem, method=method, tol=1e-3, rng=0)
    assert tight.success and tight.trace["epoch"][-1] < 20
    assert tight.trace["gradient_norm"][-1] <= 1e-3 * tight.trace["gradient_norm"][0] * 1.01
    norm = lo.GradientNorm(rtol=1e-3)
    both = lo.minimize(problem, method=method, stop=norm | lo.MaxEpochs(30), rng=0)
    assert both.status.name == "CONVERGED" and both.nit <= tight.nit
    added = lo.minimize(problem, method=method, stop=norm, rng=0)
    assert added.nit == both.nit
    assert re.search(r"No limit was given, so MaxEpochs\(.*20\) was added", added.message)
    never = lo.minimize(problem, method=lo.landing_sgd(0.2, batch_size=2), tol=1e-9, rng=0)
    assert never.status.name == "MAX_EPOCHS" and not never.success
    full = lo.minimize(problem, method=lo.landing(), stop=lo.GradientNorm(rtol=1e-3), rng=0)
    assert re.search(r"MaxIterations\(.*10000\) was added", full.message)
    with pytest.raises(ValueError, match="tol is part of the default stop rule"):
        lo.minimize(problem, method=method, tol=1e-3, stop=norm)


def test_nothing_whole_is_evaluated_where_the_record_says_so(rng):
    """EveryEpoch(full=False): no f, no full gradient, NaN in their place; metrics all the same."""
    problem, calls = counting(rng)
    record = lo.EveryEpoch(1, full=False, metrics={"corner": lambda x: x[0, 0]})
    method = lo.landing_sgd(0.01, batch_size=4)
    rows = []
    result = lo.minimize(
        problem, method=method, record=record, rng=0, stop=lo.MaxEpochs(5), callback=rows.append
    )
    assert calls["fun"] == []
    assert max(calls["grad"]) == 4
    assert sum(calls["grad"][4:]) / 20 == pytest.approx(result.trace["epoch"][-1])
    trace = result.trace
    for name in ("fun", "feasible_fun", "gradient_norm"):
        assert np.all(np.isnan(trace[name]))
        assert np.isnan(getattr(result, name))
        assert all(np.isnan(getattr(row, name)) for row in rows)
    for name in ("distance", "epoch", "corner", "step"):
        assert np.all(np.isfinite(trace[name][1:]))
    assert len(trace) == 6
    assert trace["corner"][-1] == result.x[0, 0]
    assert result.distance == pytest.approx(ref.distance(result.x), abs=1e-14)
    kept = lo.minimize(problem, method=method, record=record, rng=0, stop=lo.GradientNorm(atol=1e9))
    assert kept.status.name == "MAX_EPOCHS"
    assert max(calls["grad"]) == 4


def test_metrics_are_off_the_clock_and_not_counted(rng):
    problem, _ = counting(rng)
    method = lo.landing_sgd(0.01, batch_size=4)
    plain = lo.minimize(problem, method=method, rng=0, stop=lo.MaxEpochs(4))

    def slow(x):
        import time

        time.sleep(0.02)
        return problem.fun(x)

    seen = lo.minimize(
        problem,
        method=method,
        rng=0,
        stop=lo.MaxEpochs(4),
        record=lo.EveryEpoch(0.5, metrics={"slow": slow}),
    )
    assert (seen.nit, seen.njev, seen.nfev) == (plain.nit, plain.njev, plain.nfev)
    np.testing.assert_array_equal(seen.x, plain.x)
    np.testing.assert_allclose(seen.trace["slow"], seen.trace["fun"], rtol=1e-12)
    assert seen.seconds < 0.02 * len(seen.trace)


def test_what_is_measured_is_the_whole_sum(rng):
    case = Case(rng)
    everything = np.arange(N)
    xs, result = run(case.problem, case.x0, case.method(MiniBatch(2)), 10, rng=0)
    values = [case.problem.fun_terms(x, everything) for x in xs]
    np.testing.assert_allclose(result.trace["fun"], values, rtol=1e-12)
    norms = []
    for x in xs:
        g = case.grad(x, everything)
        norms.append(np.linalg.norm(g - x @ ref.sym(ref.H(x) @ g)))
    np.testing.assert_allclose(result.trace["gradient_norm"], norms, rtol=1e-10)


@pytest.mark.parametrize("epochs", [0, -1, math.inf, math.nan, True, "1"])
def test_every_epoch_needs_a_positive_number(epochs):
    with pytest.raises(ValueError, match="epochs must be a positive number"):
        lo.EveryEpoch(epochs)


# -- the generator ----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_a_seed_repeats_a_run(rng, preset):
    problem, _ = counting(rng)
    linear = lo.LinearModelSum(*sums.linear_models(rng, 40, 6, 3), p=3)
    before = np.random.get_state()[1].copy()
    for which in (problem, linear):
        for method in (preset(batch_size=4), preset(0.05, batch_size=4)):

            def end(seed, which=which, method=method):
                return lo.minimize(which, method=method, rng=seed, stop=lo.MaxEpochs(2)).x

            np.testing.assert_array_equal(end(3), end(3))
            np.testing.assert_array_equal(end(3), end(np.random.default_rng(3)))
            assert abs(end(3) - end(4)).max() > 1e-6
            x0 = ref.orthonormal(rng, (6, 3))
            ends = [lo.minimize(which, x0, method, rng=s, stop=lo.MaxEpochs(7)).x for s in (3, 4)]
            assert abs(ends[0] - ends[1]).max() > 1e-9
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# -- step rules -------------------------------------------------------------------------------


def steps_of(problem, rule, steps, method=lo.landing_sgd, **options):
    method = method(rule, batch_size=5, **options)
    result = lo.minimize(
        problem, method=method, stop=lo.MaxIterations(steps), record=lo.Every(1), rng=0
    )
    return result.trace["step"][1:]


def test_the_formulas_of_the_rules(rng):
    """A step's number is the rule's; before step k, with its gradient, (k + 1)/4 epochs are done."""
    problem, _ = counting(rng)
    k = np.arange(12)
    epoch = 0.25 * (k + 1)
    small = 1e-3  # far below the safe step
    horizon = steps_of(problem, lo.steps.Horizon(small, 100), 12)
    np.testing.assert_allclose(horizon, small / 10, rtol=1e-14)
    decay = steps_of(problem, lo.steps.Decay(small, 0.7, 5.0), 12)
    np.testing.assert_allclose(decay, small / (1 + k / 5) ** 0.7, rtol=1e-14)
    cosine = steps_of(problem, lo.steps.Cosine(small, 2.0, 1e-4), 12)
    part = np.minimum(1, epoch / 2)
    expected = 1e-4 + (small - 1e-4) * 0.5 * (1 + np.cos(np.pi * part))
    np.testing.assert_allclose(cosine, expected, rtol=1e-13)
    warm = steps_of(problem, lo.steps.Cosine(small, 10, 1e-4, by="iteration", warmup=4), 12)
    part = np.clip((k - 4) / 6, 0, 1)
    expected = 1e-4 + (small - 1e-4) * 0.5 * (1 + np.cos(np.pi * part))
    expected[:4] = small * np.maximum(0.01, k[:4] / 4)
    np.testing.assert_allclose(warm, expected, rtol=1e-13)
    warm = steps_of(problem, lo.steps.Cosine(small, 2.5, warmup=1), 12)
    np.testing.assert_allclose(warm[:3], small * epoch[:3], rtol=1e-13)
    np.testing.assert_allclose(warm[3], small, rtol=1e-13)
    stairs = steps_of(problem, lo.steps.StepDecay(small, (1, 2), 0.5), 12)
    np.testing.assert_allclose(stairs, small * 0.5 ** np.sum(epoch >= [[1], [2]], 0), rtol=1e-14)
    stairs = steps_of(problem, lo.steps.StepDecay(small, (3, 8), by="iteration"), 12)
    np.testing.assert_allclose(stairs, small * 0.1 ** np.sum(k >= [[3], [8]], 0), rtol=1e-14)


def test_a_rule_changes_the_way_as_its_numbers_say(rng):
    case = Case(rng)
    draws = picks(rng)
    for rule, size in (
        (lo.steps.Decay(0.2, 0.5, 3.0), lambda k: 0.2 / math.sqrt(1 + k / 3)),
        (lo.steps.Horizon(0.2, STEPS), lambda k: 0.2 / math.sqrt(STEPS)),
        (lo.steps.StepDecay(0.2, (10,), by="iteration"), lambda k: 0.2 if k < 10 else 0.02),
        (
            lo.steps.Cosine(0.2, 30, by="iteration"),
            lambda k: 0.1 * (1 + math.cos(math.pi * min(k / 30, 1.0))),
        ),
        (lambda k: 0.1 / (1 + k), lambda k: 0.1 / (1 + k)),
    ):
        case.step = size
        expected = case.naive(sums.sgd(case.grad, listed(draws)))
        case.step = rule
        assert_close(case.run(MiniBatch(B, Replay(draws))), expected, 1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lo.steps.Horizon(0.0, 5),
        lambda: lo.steps.Horizon(0.1, 0),
        lambda: lo.steps.Cosine(-1, 5),
        lambda: lo.steps.Cosine(0.1, 0),
        lambda: lo.steps.Cosine(0.1, 5, final=0.2),
        lambda: lo.steps.Cosine(0.1, 5, warmup=5),
        lambda: lo.steps.Cosine(0.1, 5, by="step"),
        lambda: lo.steps.StepDecay(0.1, ()),
        lambda: lo.steps.StepDecay(0.1, (5, 3)),
        lambda: lo.steps.StepDecay(0.1, (0,)),
        lambda: lo.steps.StepDecay(0.1, (5,), factor=0),
        lambda: lo.steps.StepDecay(0.1, (5,), by="epochs"),
        lambda: lo.steps.FromCurvature(0.0),
        lambda: lo.steps.FromCurvature(0.5, power=-1),
        lambda: lo.steps.AnchorBarzilaiBorwein(0.0),
        lambda: lo.steps.AnchorBarzilaiBorwein(curvature=-1.0),
    ],
)
def test_rules_check_their_numbers(make):
    with pytest.raises((TypeError, ValueError)):
        make()


def diagonal_sum(rng, n_terms, shape, largest, weight=1.0):
    """Terms with Hessians of their own around diag(largest, 1, 1, ...), all the same where alike."""
    n = shape[0]
    h = np.ones(n)
    h[0] = largest
    q = ref.orthonormal(rng, (n, n))
    a = (q * h) @ q.T
    c = ref.gaussian(rng, (n_terms, *shape))

    def fun(x, terms):
        return weight * float(np.mean(np.sum(0.5 * x * (a @ x) - c[terms] * x, axis=(-2, -1))))

    def grad(x, terms):
        return weight * (a @ x - np.mean(c[terms], axis=0))

    return lo.FiniteSum(fun, grad, n_terms=n_terms, shape=shape)


def test_the_curvature_of_a_quadratic(rng):
    """Within 20 % of the largest eigenvalue; the numbers are in the reported method."""
    for largest in (5.0, 40.0):
        problem = diagonal_sum(rng, 12, (8, 3), largest)
        for preset, factor in (
            (lo.landing_svrg, 0.5),
            (lo.landing_saga, 1 / 6),
            (lo.landing_sgd, 0.5),
        ):
            for size in (12, 3):
                method = lo.minimize(
                    problem, method=preset(batch_size=size), rng=1, stop=lo.MaxIterations(0)
                ).method
                step = method.search.step.rule.step
                assert 0.8 * largest < factor / step < 1.05 * largest
                assert method.lam == pytest.approx(0.5 / step, rel=1e-12)
                assert f"step={step:.3g}" in method.name and f"lam={0.5 / step:.3g}" in method.name


def test_the_full_gradient_has_a_curvature_too(rng):
    problem = diagonal_sum(rng, 12, (8, 3), 10.0)
    plain = lo.Objective(problem.fun, problem.grad, shape=(8, 3))
    result = lo.minimize(
        plain, method=lo.landing(lo.steps.FromCurvature(0.5)), rng=0, stop=lo.MaxIterations(5)
    )
    assert 0.04 < result.method.search.step.rule.step < 0.065
    assert result.njev == 4 + 6


@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_a_default_run_does_not_depend_on_the_scale_of_f(rng, preset):
    """Steps scale as 1/weight; the iterates agree, and the epochs needed."""
    state = np.random.default_rng(7)
    data = ref.gaussian(state, (60, 8, 3))
    a = np.eye(8) + 0.3 * ref.gaussian(state, (60, 8, 8)) / 8**0.5
    x0 = ref.orthonormal(rng, (8, 3))
    ends, steps, last = [], [], []
    for weight in (1.0, 1e-6, 1e6):

        def fun(x, t, w=weight):
            return w * 0.5 * float(np.mean(np.sum((a[t] @ x - data[t]) ** 2, axis=(1, 2))))

        def grad(x, t, w=weight):
            return w * np.mean(np.swapaxes(a[t], 1, 2) @ (a[t] @ x - data[t]), axis=0)

        problem = lo.FiniteSum(fun, grad, n_terms=60, shape=(8, 3))
        stop = lo.GradientNorm(rtol=1e-3) | lo.MaxEpochs(40)
        result = lo.minimize(problem, x0, preset(batch_size=6), rng=2, stop=stop)
        steps.append(weight * result.method.search.step.rule.step)
        ends.append(result.x)
        last.append(result.trace["epoch"][-1])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
    for x in ends[1:]:
        np.testing.assert_allclose(x, ends[0], atol=1e-3)
    assert last[0] == last[1] == last[2]
    if preset is not lo.landing_sgd:
        assert last[0] < 40


def test_momentum_shortens_the_default_step(rng):
    """In the long run it multiplies the step by 1 / (1 - beta)."""
    problem = diagonal_sum(rng, 12, (8, 3), 10.0)
    plain, heavy = (
        lo.minimize(
            problem, method=lo.landing_svrg(momentum=beta), rng=1, stop=lo.MaxIterations(0)
        ).method
        for beta in (0.0, 0.75)
    )
    ratio = heavy.search.step.rule.step / plain.search.step.rule.step
    assert ratio == pytest.approx(0.25, rel=1e-12)


def test_lam_without_a_step_is_refused():
    for preset in (lo.landing_sgd, lo.landing_saga, lo.landing_svrg):
        with pytest.raises(ValueError, match=r"lam = 2.0 was given without a step"):
            preset(lam=2.0)


def test_from_curvature_has_no_number_before_the_run():
    with pytest.raises(TypeError, match="no number yet"):
        lo.steps.FromCurvature().start(None)
    with pytest.raises(TypeError, match="no L_b yet"):
        lo.steps.AnchorBarzilaiBorwein().start(None)
    with pytest.raises(ValueError, match="must be positive"):
        lo.steps.FromCurvature().tuned(0.0)
    rule = lo.steps.FromCurvature(0.5, power=0.5, offset=10).tuned(2.0)
    assert rule == lo.steps.Decay(0.25, 0.5, 10.0)
    assert lo.steps.AnchorBarzilaiBorwein(curvature=3.0).tuned(7.0).curvature == 3.0
    assert lo.steps.AnchorBarzilaiBorwein(cap=0.5).tuned(4.0).step == 0.125


def test_the_steps_of_anchor_barzilai_borwein(rng):
    """min(cap / L_b, factor <s, s> / (m |<s, y>|)), s and y between the last two anchors.

    y is the change of the Riemannian gradient, and m the number of steps from anchor to anchor.
    """
    n_terms = 12
    fun, grad = sums.quadratics(rng, n_terms, (6, 3))
    problem = lo.FiniteSum(fun, grad, n_terms=n_terms, shape=(6, 3))
    x0 = ref.orthonormal(rng, (6, 3))

    def psi(x):
        g = grad(x, slice(None))
        return g - x @ ref.sym(x.T @ g)

    met = set()
    for cap in (0.05, 5.0):
        rule = lo.steps.AnchorBarzilaiBorwein(cap, 0.1, 2.0)
        method = lo.landing(rule, lam=1.0, base=Svrg(3, inner=1.0))
        xs, result = run(problem, x0, method, 31, rng=0)
        steps = result.trace["step"][1:]
        for k in range(31):
            anchors = list(range(0, k + 1, 5))  # an anchor, then four minibatches
            wanted = cap / 2.0
            if len(anchors) > 1:
                old, now = xs[anchors[-2]], xs[anchors[-1]]
                s, y = now - old, psi(now) - psi(old)
                bb = 0.1 * ref.inner(s, s) / (5 * abs(ref.inner(s, y)))
                met.add("cap" if wanted < bb else "bb")
                wanted = min(wanted, bb)
            if wanted < 0.1:  # the safe step does not cut in
                assert steps[k] == pytest.approx(wanted, rel=1e-7)
    assert met == {"cap", "bb"}


def test_a_curvature_that_is_given_is_not_measured(rng):
    problem, _ = counting(rng)
    method = lo.landing_svrg(lo.steps.AnchorBarzilaiBorwein(curvature=3.0), batch_size=4)
    result = lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(1))
    assert result.trace["epoch"][-1] == 1.0


def test_anchor_barzilai_borwein_is_tuned_and_solves(rng):
    problem, _ = counting(rng, n_terms=60)
    method = lo.landing_svrg(lo.steps.AnchorBarzilaiBorwein(), batch_size=6)
    stop = lo.GradientNorm(rtol=1e-6) | lo.MaxEpochs(100)
    result = lo.minimize(problem, method=method, stop=stop, rng=0)
    assert result.success
    first = result.method.search.step.rule.step
    assert result.method.lam == pytest.approx(0.5 / first)


@pytest.mark.parametrize("shape", [(6, 3), (6, 6)])
@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_a_default_step_for_a_linear_f(rng, preset, shape):
    """Its curvature is all the manifold's: the optimum is the polar factor of the mean."""
    c = 3 * ref.orthonormal(rng, shape) + ref.gaussian(rng, (60, *shape))
    problem = lo.FiniteSum(
        lambda x, t: -float(np.mean(np.sum(c[t] * x, axis=(1, 2)))),
        lambda x, t: -np.mean(c[t], axis=0),
        n_terms=60,
        shape=shape,
    )
    best = ref.polar(c.mean(axis=0))
    component = lo.stiefel.component(best)
    result = lo.minimize(problem, method=preset(batch_size=6), rng=0, component=component)
    assert result.feasible_fun < 0.98 * problem.fun(best)
    assert result.distance < 0.1


def test_a_flat_start_and_a_broken_one(rng):
    """No curvature to measure: a plain answer in place of a division by zero."""

    def gradient(value):
        return lambda x, t: np.full_like(x, value)

    for preset in (lo.landing_sgd, lo.landing_saga, lo.landing_svrg):
        flat = lo.FiniteSum(lambda x, t: 0.0, gradient(0.0), n_terms=20, shape=(6, 3))
        result = lo.minimize(flat, method=preset(batch_size=4), rng=0)
        assert result.distance < 1e-12
        broken = lo.FiniteSum(lambda x, t: 0.0, gradient(np.nan), n_terms=20, shape=(6, 3))
        with pytest.raises(lo.SolveError):
            lo.minimize(broken, method=preset(batch_size=4), rng=0)


# -- convergence ------------------------------------------------------------------------------


def principal_components(n_terms, n, p, seed=0, **options):
    data = np.random.default_rng(seed).standard_normal((n_terms, n)) * np.linspace(2, 0.5, n)
    return lo.LinearModelSum(
        lambda u, terms: -0.5 * np.sum(u**2, axis=1), lambda u, terms: -u, data, p=p, **options
    )


def test_variance_reduced_methods_converge_where_sgd_plateaus():
    problem = principal_components(400, 12, 3)
    best = -0.5 * np.linalg.eigvalsh(problem.data.T @ problem.data / 400)[-3:].sum()
    stop = lo.GradientNorm(rtol=1e-8) | lo.MaxEpochs(150)
    for method in (
        lo.landing_svrg(batch_size=16),
        lo.landing_saga(batch_size=16),
        lo.landing_svrg(lo.steps.AnchorBarzilaiBorwein(), batch_size=16),
        lo.landing_svrg(batch_size=16, momentum=0.5),
    ):
        result = lo.minimize(problem, method=method, stop=stop, rng=0)
        assert result.status.name == "CONVERGED", method.name
        assert result.feasible_fun == pytest.approx(best, rel=1e-9)
        assert result.distance < 1e-8
    for method in (lo.landing_sgd(batch_size=16), lo.landing_sgd(0.05, batch_size=16)):
        result = lo.minimize(problem, method=method, stop=stop, rng=0)
        assert result.status.name == "MAX_EPOCHS"
        assert result.gradient_norm > 1e-4
        assert result.feasible_fun - best < 0.05 * abs(best)


@pytest.mark.parametrize("estimator", [Saga(16, structured=False), Svrg(16, loopless=True)])
def test_other_estimators_converge(estimator):
    problem = principal_components(400, 12, 3)
    step = lo.steps.FromCurvature(1 / 3)
    tangent = lo.fields.Euclidean()
    method = lo.landing(step, base=estimator, tangent=tangent)
    result = lo.minimize(
        problem, method=method, stop=lo.GradientNorm(rtol=1e-8) | lo.MaxEpochs(300), rng=0
    )
    assert result.success


@pytest.mark.parametrize("preset", [lo.landing_saga, lo.landing_svrg])
def test_stacks_and_products_converge(rng, preset):
    stop = lo.GradientNorm(rtol=1e-7) | lo.MaxEpochs(300)
    for coupled in (False, True):
        fun, grad = sums.quadratics(rng, 40, (3, 6, 4), easy=True)
        problem = lo.FiniteSum(
            (lambda x, t, f=fun: float(f(x, t).sum())) if coupled else fun,
            grad,
            n_terms=40,
            shape=(3, 6, 4),
        )
        result = lo.minimize(problem, method=preset(batch_size=4), stop=stop, rng=0)
        assert result.success
        assert np.shape(result.status) == (() if coupled else (3,))
    fun, grad = sums.product(rng, 40, easy=True)
    problem = lo.FiniteSum(
        fun,
        grad,
        n_terms=40,
        shape={"W": (7, 4), "b": (3,)},
        constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
    )
    result = lo.minimize(problem, method=preset(batch_size=4), stop=stop, rng=0)
    assert result.success


def test_other_methods_take_the_same_estimators(rng):
    """POGO and Adam around a minibatch, with their own moves."""
    problem = principal_components(200, 8, 3)
    best = -0.5 * np.linalg.eigvalsh(problem.data.T @ problem.data / 200)[-3:].sum()
    for method in (
        lo.pogo(0.1, base=Saga(16)),
        lo.pogo(0.1, base=Momentum(0.5, base=Svrg(16))),
        lo.landing(lo.steps.Cosine(1.0, 20), base=lo.estimators.Adam(base=MiniBatch(16))),
        lo.landing(0.1, base=lo.estimators.Momentum(0.5, base=lo.estimators.Tangent(Saga(16)))),
    ):
        assert method.stochastic
        result = lo.minimize(problem, method=method, rng=0)
        assert result.status.name == "MAX_EPOCHS"
        assert result.feasible_fun - best < 0.02 * abs(best), method


def test_retractions_take_the_same_estimators():
    if not hasattr(lo.retractions, "QR"):
        pytest.skip("there is no retraction yet")
    problem = principal_components(200, 8, 3)
    stop = lo.GradientNorm(rtol=1e-6) | lo.MaxEpochs(150)
    result = lo.minimize(problem, method=lo.riemannian(estimator=Svrg(16)), stop=stop, rng=0)
    assert result.success


# -- memory -----------------------------------------------------------------------------------


def test_bytes_of_tables(rng):
    for dtype, item in (("float32", 4), ("float64", 8), ("complex64", 8), ("complex128", 16)):
        problem = lo.LinearModelSum(*sums.linear_models(rng, 50, 6, 3, dtype), p=3)
        assert Saga(8).table_bytes(problem) == 50 * 3 * item
        assert Saga(8, structured=False).table_bytes(problem) == 7 * 6 * 3 * item
        fun, grad = sums.quadratics(rng, 50, (4, 7), dtype)
        plain = lo.FiniteSum(fun, grad, n_terms=50, shape=(4, 7))
        assert Saga(50).table_bytes(plain, np.zeros((4, 7), dtype)) == 28 * item
        assert Saga().table_bytes(plain, np.zeros((4, 7), dtype)) == 50 * 28 * item
    wide = lo.LinearModelSum(*sums.linear_models(rng, 50, 3, 6), p=6)
    assert Saga(8).table_bytes(wide) == 50 * 6 * 8
    _, grad = sums.product(rng, 50)
    product = lo.FiniteSum(
        None,
        grad,
        n_terms=50,
        shape={"W": (7, 4), "b": (3,)},
        constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
    )
    assert Saga(8).table_bytes(product) == 7 * 31 * 8
    stack = lo.FiniteSum(None, grad, n_terms=50, shape=(3, 7, 4))
    assert Saga(8).table_bytes(stack) == 7 * 84 * 8


def test_the_structured_table_takes_what_it_says():
    """N p numbers, the chunk in hand, and a little."""
    n_terms, n, p = 40_000, 10, 4
    problem = principal_components(n_terms, n, p, chunk_terms=500)
    method = lo.landing(0.01, base=Saga(20))
    record = lo.EveryEpoch(1, full=False)
    lo.minimize(problem, method=method, stop=lo.MaxIterations(2), record=record, rng=0)
    tracemalloc.start()
    try:
        lo.minimize(problem, method=method, stop=lo.MaxIterations(50), record=record, rng=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    table = Saga(20).table_bytes(problem)
    assert table == n_terms * p * 8
    assert table <= peak < table + 400_000


@pytest.mark.parametrize("structured", [True, False])
def test_a_table_that_is_too_large_is_refused_first(rng, structured):
    """Before anything is allocated; the message names the ways out."""
    n_terms = 100_000
    data = np.zeros((n_terms, 200))
    problem = lo.LinearModelSum(None, lambda u, t: -u, data, p=100)
    estimator = Saga(32, structured=structured, max_bytes=10**6)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="SAGA's") as caught:
            lo.minimize(problem, method=lo.landing(0.1, base=estimator), rng=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10**7
    words = str(caught.value)
    assert "lo.landing_svrg()" in words and "max_bytes" in words
    assert ("structured table would take 76.3 MiB" in words) == structured
    assert ("batch_size" in words and "LinearModelSum" in words) != structured
    fits = estimator.table_bytes(problem)
    assert fits == (n_terms * 800 if structured else 3125 * 160_000)


def test_the_size_of_a_table_is_told_before_it_is_allocated(rng, caplog):
    problem = lo.problems.ICA.random(4, 300, rng=0)
    with caplog.at_level("INFO", logger="landingopt"):
        lo.minimize(problem, method=lo.landing_saga(0.1), stop=lo.MaxIterations(1), rng=0)
    assert "SAGA allocates its structured table: 9.38 KiB" in caplog.text


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("preset", [lo.landing_svrg, lo.landing_saga])
def test_momentum_with_a_chosen_step_converges_where_normal_parts_are_large(preset, seed):
    """Log-cosh ICA: X^H G is positive at the optimum, and plain momentum circles."""
    problem = lo.problems.ICA.random(10, 5000, rng=0)
    stop = lo.GradientNorm(rtol=1e-5) | lo.MaxEpochs(120)
    result = lo.minimize(problem, method=preset(momentum=0.9), rng=seed, stop=stop)
    assert result.success


def test_an_equal_step_is_equal_for_a_retraction():
    """On tall X too: the same estimator, samples and step go the same way to first order."""
    problem = lo.problems.SampledPCA.random(500, 12, 3, rng=0)
    x0 = lo.stiefel.random(12, 3, rng=1)
    ends = {}
    for name, method in {
        "landing": lo.landing_svrg(1e-3, batch_size=10),
        "QR": lo.riemannian(step=1e-3, estimator=Svrg(10)),
        "papers": lo.landing_svrg(1e-3, batch_size=10, tangent=lo.fields.Canonical()),
    }.items():
        ends[name] = lo.minimize(problem, x0, method, stop=lo.MaxIterations(40), rng=2).feasible_x
    moved = np.linalg.norm(ends["QR"] - x0)
    assert np.linalg.norm(ends["landing"] - ends["QR"]) < 0.01 * moved
    assert np.linalg.norm(ends["papers"] - ends["QR"]) > 0.2 * moved  # half a step


def test_the_name_of_a_chosen_method_is_a_call_that_repeats_it():
    problem = lo.problems.SampledPCA.random(500, 12, 3, rng=0)
    x0 = lo.stiefel.random(12, 3, rng=1)
    chosen = lo.minimize(
        problem, x0, lo.landing_svrg(batch_size=10), stop=lo.MaxIterations(30), rng=2
    )
    step, lam = chosen.method.search.step.rule.step, chosen.method.lam
    assert chosen.method.name == f"landing_svrg(step={step:.3g}, lam={lam:.3g})"
    given = lo.landing_svrg(step, lam=lam, batch_size=10)
    assert given.field == chosen.method.field and given.search == chosen.method.search


def test_a_broken_end_is_told(rng):
    batches = [rng.standard_normal((20, 6)) for _ in range(6)]
    batches[3][2] = np.nan
    problem = lo.Stream(None, lambda x, a: -a.T @ (a @ x) / len(a), batches=batches, shape=(6, 2))
    for method in (
        lo.landing_sgd(0.1),
        lo.landing_sgd(0.1, momentum=0.5),
        lo.riemannian(step=0.1, estimator=MiniBatch()),
    ):
        with pytest.raises(lo.SolveError) as caught:
            lo.minimize(problem, method=method, rng=0)
        assert caught.value.result.status.name == "NONFINITE"
    fine = lo.Stream(None, problem.grad_batch, batches=batches[:3], shape=(6, 2))
    assert lo.minimize(fine, method=lo.landing_sgd(0.1), rng=0).status.name == "STREAM_ENDED"


def test_rules_that_a_stream_cannot_meet_are_refused(rng):
    batches = [rng.standard_normal((20, 6)) for _ in range(6)]
    problem = lo.Stream(None, lambda x, a: -a.T @ (a @ x) / len(a), batches=batches, shape=(6, 2))
    for rule in (
        lo.MaxEpochs(3),
        lo.GradientNorm(1e-3),
        lo.Target(0.0) | lo.MaxIterations(3),
    ):
        with pytest.raises(ValueError, match="can never be met on a stream"):
            lo.minimize(problem, method=lo.landing_sgd(0.1), stop=rule)
    result = lo.minimize(problem, method=lo.landing_sgd(0.1), stop=lo.MaxIterations(3), rng=0)
    assert result.nit == 3
    with pytest.raises(ValueError, match="batches come as they are"):
        lo.minimize(problem, method=lo.landing_sgd(0.1, batch_size=5))
    with pytest.raises(TypeError, match="a stream does not tell"):
        lo.compare(problem, [lo.landing_sgd(0.1)])


def test_a_tolerance_needs_what_tells_it(rng):
    problem = lo.problems.ICA.random(4, 300, rng=0)
    with pytest.raises(ValueError, match="needs the gradient norm"):
        lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, record=lo.EveryEpoch(full=False))
    result = lo.minimize(problem, method=lo.landing_sgd(), tol=1e-12, rng=0)
    assert 100 <= result.trace["epoch"][-1] < 101
    assert "lo.MaxEpochs" in result.message


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_batch_sizes(rng, preset):
    problem, _ = counting(rng)
    for bad in (0, -1, 1.5, True, "8"):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
            preset(0.1, batch_size=bad)
    with pytest.raises(ValueError, match="batch_size = 21 is more than the 20 terms"):
        lo.minimize(problem, method=preset(0.1, batch_size=21))
    whole = preset(0.1, batch_size=np.int64(20))
    assert lo.minimize(problem, method=whole, rng=0, tol=1e-4).nit > 0


def test_the_default_batch(rng):
    """max(32, p) terms, and at most N / 32: an epoch has 32 steps at least."""
    for n_terms, shape, size in (
        (20, (6, 3), 1),
        (100, (6, 3), 3),
        (1024, (6, 3), 32),
        (5000, (6, 3), 32),
        (3200, (50, 40), 40),
        (1000, (50, 40), 31),
        (3200, (40, 50), 40),  # wide: p is the smaller one
    ):
        problem = lo.FiniteSum(None, lambda x, t: x, n_terms=n_terms, shape=shape)
        blocks = Saga().table_bytes(problem) // (8 * shape[0] * shape[1])
        assert blocks == -(-n_terms // size)
        record = lo.EveryEpoch(full=False)
        for estimator in (MiniBatch(), Svrg()):
            result = lo.minimize(
                problem,
                method=lo.landing(0.01, base=estimator),
                stop=lo.MaxIterations(2),
                record=record,
                rng=0,
            )
            drawn = {MiniBatch(): 2 * size, Svrg(): n_terms + 2 * size}[estimator]
            assert result.trace["epoch"][-1] == pytest.approx(drawn / n_terms, rel=1e-13)


@pytest.mark.parametrize("preset", [lo.landing_sgd, lo.landing_saga, lo.landing_svrg])
def test_a_problem_that_is_no_sum(preset):
    problem = lo.Objective(lambda x: 0.0, lambda x: 0 * x, shape=(4, 2))
    for method in (preset(0.1), preset()):
        with pytest.raises(TypeError, match=r"needs a finite sum.*lo.FiniteSum.*lo.landing\(\)"):
            lo.minimize(problem, method=method)
    with pytest.raises(TypeError, match="needs a finite sum"):
        Saga().table_bytes(problem)


def test_the_structured_table_needs_linear_models(rng):
    problem, _ = counting(rng)
    with pytest.raises(TypeError, match=r"structured table needs a lo\.LinearModelSum"):
        lo.minimize(problem, method=lo.landing(0.1, base=Saga(structured=True)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Saga(structured="yes"),
        lambda: Saga(max_bytes=0),
        lambda: Svrg(inner=0),
        lambda: Svrg(inner=math.inf),
        lambda: Svrg(inner=True),
        lambda: Svrg(loopless=1),
        lambda: Svrg(max_bytes=-1),
        lambda: lo.landing_svrg(0.1, momentum=1.0),
        lambda: lo.landing_svrg(0.1, momentum=-0.1),
        lambda: lo.landing_sgd(0.0),
        lambda: lo.landing_sgd(0.1, lam=-1.0),
        lambda: lo.landing_sgd(0.1, eps=1.0),
        lambda: lo.landing_sgd(eps=0.0),
    ],
)
def test_recipes_check_their_numbers(make):
    with pytest.raises((TypeError, ValueError)):
        make()


@pytest.mark.parametrize("estimator", [MiniBatch(4), Saga(4), Svrg(4), Momentum(0.5, base=Saga(4))])
@pytest.mark.parametrize("method", [lo.landing(), lo.landing_lbfgs()])
def test_searches_refuse_a_part_of_the_sum(method, estimator):
    from dataclasses import replace

    with pytest.raises(ValueError, match=r"need the gradient of f, estimator=Full\(\)"):
        replace(method, estimator=estimator)
