"""Methods as recipes: presets, what goes together, values without state, parts of one's own."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import landingopt as lo

PROBLEM = lo.problems.Procrustes.random(8, rng=0)
START = lo.stiefel.random(8, rng=1)

RECIPES = {
    "landing": lambda: lo.landing(),
    "fixed step": lambda: lo.landing(step=0.1, lam=2.0, eps=0.25),
    "decay": lambda: lo.landing(step=lo.steps.Decay(0.1, power=0.5)),
    "composed": lambda: lo.Method(
        search=lo.searches.OpenLoop(lo.steps.BarzilaiBorwein()),
        field=lo.fields.Field(lo.fields.Euclidean(exact=False), None),
        move=lo.moves.NewtonSchulz(),
    ),
    "step": lambda: lo.steps.Safeguarded(lo.steps.Constant(0.1), eps=0.5),
    "field": lambda: lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(2.0)),
    "move": lambda: lo.moves.NewtonSchulz(tol=1e-4, max_passes=9),
    "search": lambda: lo.searches.LineSearch(memory=0.5),
    "direction": lambda: lo.directions.Steepest(),
    "estimator": lambda: lo.estimators.Full(),
    "pogo": lambda: lo.pogo(0.1, lo.estimators.Momentum(0.9), lam=0.4),
    "transforms": lambda: lo.estimators.Momentum(0.9, True, lo.estimators.Adam(0.8)),
    "tangent": lambda: lo.fields.Field(lo.fields.BetaMetric(0.3, 2.0), None),
    "everything": lambda: lo.landing(
        step=0.1, tangent=lo.fields.Euclidean(), base=lo.estimators.Adam(), safe="exact"
    ),
}


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_recipes_are_values(make):
    recipe, same = make(), make()
    assert recipe == same
    assert hash(recipe) == hash(same)
    assert repr(recipe) == repr(same)
    assert len({recipe, same}) == 1
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert copy.deepcopy(recipe) == recipe
    for field in dataclasses.fields(recipe):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(recipe, field.name, None)


def test_recipes_differ_where_their_numbers_do():
    recipes = [
        lo.landing(),
        lo.landing(step=0.1),
        lo.landing(step=0.2),
        lo.landing(step=0.1, lam=2.0),
        lo.landing(step=0.1, eps=0.25),
        lo.landing(step=lo.steps.Decay(0.1)),
    ]
    assert len(set(recipes)) == len(recipes)


def test_a_repr_makes_the_recipe_again():
    names = {
        name: getattr(module, name)
        for module in (lo.steps, lo.fields, lo.moves, lo.searches, lo.directions, lo.estimators)
        for name in dir(module)
        if isinstance(getattr(module, name), type)
    }
    for make in RECIPES.values():
        recipe = make()
        assert eval(repr(recipe), names | {"Method": lo.Method}) == recipe


# -- the presets --------------------------------------------------------------------------------


def test_the_papers_defaults():
    """lam = 1, eps = 1/2 and the safe step, of which the wanted one is cut."""
    method = lo.landing(step=0.1)
    assert method.lam == 1.0
    assert method.search.step == lo.steps.Safeguarded(lo.steps.Constant(0.1), eps=0.5)
    assert method.field == lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(1.0))
    assert method.move == lo.moves.Additive()


def test_the_parameter_free_landing_has_no_lam():
    assert lo.landing().lam == 0.0
    assert lo.landing().name == "landing"
    assert lo.landing(step=0.1).name == "landing(step=0.1, lam=1)"


def naive_landing(x, grad, step, lam, iterations, eps=0.5):
    """X - eta Lambda(X), eta = min(step, safe step) [AVGA24], in ten lines."""
    for k in range(iterations):
        outer = grad(x) @ x.T
        delta = x.T @ x - np.eye(x.shape[1])
        field = (outer - outer.T) @ x / 2 + lam * x @ delta
        d, g = np.linalg.norm(delta), np.linalg.norm(field)
        pull = lam * d * (1 - d)
        safe = (pull + np.sqrt(pull**2 + g**2 * max(eps - d, 0.0))) / g**2
        safe = min(safe, 1 / (2 * lam)) if lam else safe
        x = x - min(step(k), safe) * field
    return x


@pytest.mark.parametrize(
    ("step", "plain"),
    [
        (0.005, lambda k: 0.005),
        (5.0, lambda k: 5.0),  # always cut
        (lambda k: 0.03 / (1 + k), lambda k: 0.03 / (1 + k)),
        (lo.steps.Decay(0.02, power=0.5), lambda k: 0.02 / np.sqrt(1 + k)),
        (lo.steps.Schedule(lambda k: 0.01 if k < 5 else 0.001), lambda k: 0.01 if k < 5 else 0.001),
    ],
    ids=["constant", "cut", "function", "decay", "schedule"],
)
@pytest.mark.parametrize("weight", [1.0, 0.01])  # 0.01: the safe step is its cap, 1 / (2 lam)
@pytest.mark.parametrize("lam", [1.0, 0.3])
def test_a_fixed_step_is_the_papers_iteration(step, plain, lam, weight):
    problem = lo.problems.Procrustes(PROBLEM.A, PROBLEM.B, weight=weight)
    x0 = START @ np.diag(np.linspace(0.97, 1.05, 8))
    options = dict(stop=lo.MaxIterations(12))
    result = lo.minimize(problem, x0, lo.landing(step=step, lam=lam), **options)
    expected = naive_landing(x0, problem.grad, plain, lam, 12)
    np.testing.assert_allclose(result.x, expected, rtol=0, atol=1e-12)


def test_a_schedule_is_asked_at_0_1_2():
    asked = []

    def schedule(k):
        asked.append(k)
        return 0.01

    method = lo.landing(step=schedule)
    for _ in range(2):  # and from 0 again in a second run
        asked.clear()
        lo.minimize(PROBLEM, START, method, stop=lo.MaxIterations(5))
        assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("lam", [0.0, 0.5, 4.0])
def test_lam_is_the_weight_of_the_normal_term(lam):
    """Without f, one step takes Delta to (1 - 2 eta lam) Delta + O(Delta^2)."""
    problem = lo.Objective(grad=lambda x: np.zeros_like(x), shape=(8, 8))
    x0 = START @ np.diag(1 + 1e-4 * np.arange(8))
    method = lo.landing(step=0.01, lam=lam)
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(1))
    ratio = result.distance / np.linalg.norm(x0.T @ x0 - np.eye(8))
    assert ratio == pytest.approx(1 - 2 * 0.01 * lam, rel=1e-3)


def test_the_options_of_the_papers_landing():
    """What each keyword makes; without it, the default."""
    field, estimator = lo.fields, lo.estimators
    plain = lo.landing(step=0.1)
    assert plain.field.tangent == field.Canonical(metric_scale=0.5)
    assert plain.estimator == estimator.Full()
    assert not plain.search.step.exact
    assert lo.landing(step=0.1, tangent=field.Euclidean()).field == field.Field(field.Euclidean())
    assert lo.landing(step=0.1, base=estimator.Adam()).estimator == estimator.Adam()
    assert lo.landing(step=0.1, base=estimator.Adam()).name == "landing(step=0.1, lam=1, base=Adam)"
    assert lo.landing(step=0.1, safe="exact").search.step == lo.steps.Safeguarded(
        lo.steps.Constant(0.1), 0.5, exact=True
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tangent": lo.fields.Euclidean()}, "tangent = Euclidean"),
        ({"base": lo.estimators.Full()}, "base = Full()"),
        ({"safe": "exact"}, "safe = 'exact'"),
    ],
)
def test_options_that_need_a_step(options, told):
    with pytest.raises(ValueError, match="without a step") as caught:
        lo.landing(**options)
    (name,) = options
    assert told in str(caught.value)
    assert f"lo.landing(step=..., {name}=...)" in str(caught.value)


def test_options_of_the_wrong_kind():
    for value in ("canonical", 1.0, lo.fields.Canonical, lo.fields.Penalty()):
        with pytest.raises(TypeError, match="tangent must be a tangent term such as"):
            lo.landing(step=0.1, tangent=value)
    for value in ("papers", True, None):
        with pytest.raises(ValueError, match='safe must be "bound" or "exact", got'):
            lo.landing(step=0.1, safe=value)
    with pytest.raises(ValueError, match="not tangent off the manifold"):
        lo.landing(step=0.1, tangent=lo.fields.Euclidean(exact=False))
    with pytest.raises(ValueError, match="step must be positive"):
        lo.pogo(-0.1)
    with pytest.raises(TypeError, match="step must be a positive number"):
        lo.pogo(None)
    for value in (0.0, 1.0, -1, np.nan, "half", None, True):
        with pytest.raises(ValueError, match="lam must lie strictly between 0 and 1"):
            lo.pogo(0.1, lam=value)


# -- what goes together -------------------------------------------------------------------------

LANDING = lo.landing()


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            {"search": lo.searches.LineSearch()},
            ("LineSearch", "Field(tangent=Euclidean(exact=False), normal=None)", "OpenLoop"),
        ),
        (
            {"search": lo.searches.LineSearch(), "field": LANDING.field},
            ("NewtonSchulz()", "unbounded below", "move=lo.moves.NewtonSchulz()"),
        ),
        (
            {
                "search": lo.searches.OpenLoop(lo.steps.Constant(0.1)),
                "field": lo.fields.Field(lo.fields.Euclidean(exact=False)),
            },
            ("not tangent", "Additive", "Euclidean() or Canonical()"),
        ),
        (
            {
                "search": lo.landing(step=0.1).search,
                "field": lo.fields.Field(lo.fields.Canonical(), None),
            },
            ("Safeguarded", "Penalty", "without Safeguarded"),
        ),
        (
            {
                "search": lo.searches.OpenLoop(lo.steps.Constant(0.1)),
                "field": lo.fields.Field(lo.fields.Euclidean(exact=False, metric_scale=2.0), None),
                "move": lo.moves.Pogo(),
            },
            ("not tangent", "Pogo", "Euclidean() or Canonical()"),
        ),
        (
            {
                "search": lo.searches.LineSearch(),
                "field": lo.fields.Field(lo.fields.Euclidean(), None),
            },
            ("LineSearch", "exact=False"),
        ),
        (
            {
                "search": lo.searches.LineSearch(),
                "field": lo.fields.Field(lo.fields.Euclidean(False, 2.0), None),
                "move": lo.moves.NewtonSchulz(),
            },
            ("LineSearch", "exact=False"),
        ),
        (
            {"search": lo.landing(step=0.1).search, "move": lo.moves.Pogo()},
            ("Safeguarded", "Additive", "without Safeguarded"),
        ),
        (
            {"search": lo.landing(step=0.1).search, "move": lo.moves.NewtonSchulz()},
            ("Safeguarded", "Additive", "without Safeguarded"),
        ),
    ],
)
def test_parts_that_do_not_go_together(parts, told):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the texts are checked below
        lo.Method(**parts)
    for text in told:
        assert text in str(caught.value)


@pytest.mark.parametrize("name", ["search", "field", "move", "direction", "estimator"])
@pytest.mark.parametrize("value", [3, None, "landing", lo.steps.Constant, lo.fields.Field])
def test_a_part_of_the_wrong_kind(name, value):
    parts = {"search": lo.searches.OpenLoop(lo.steps.Constant(0.1))} | {name: value}
    with pytest.raises(TypeError, match=f"{name} must be a recipe such as lo."):
        lo.Method(**parts)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: lo.riemannian(lo.moves.NewtonSchulz()), ("retraction", "lo.moves")),
        (lambda: lo.riemannian(tangent=lo.landing()), ("tangent", "lo.fields.Canonical()")),
        (lambda: lo.riemannian(tangent="canonical"), ("tangent", "'canonical'")),
        (lambda: lo.riemannian(search=lo.steps.Constant(0.1)), ("search", "lo.steps")),
        (lambda: lo.riemannian(estimator=lo.optimizers.Adam(0.1)), ("estimator", "lo.optimizers")),
        (lambda: lo.landing(step=lo.estimators.Full()), ("step", "lo.estimators")),
        (lambda: lo.landing_sgd(sampler=lo.estimators.Full()), ("sampler", "lo.estimators")),
        (lambda: lo.penalty(1.0, estimator=lo.optimizers.Adam(0.1)), ("estimator",)),
        (lambda: lo.fields.Field(lo.fields.Penalty()), ("tangent", "Penalty")),
        (lambda: lo.fields.Field(normal=lo.fields.Canonical()), ("normal", "Canonical")),
    ],
)
def test_a_part_in_the_place_of_another_kind(make, told):
    with pytest.raises(TypeError) as caught:
        make()
    for text in told:
        assert text in str(caught.value)


def test_a_part_of_ones_own_may_live_anywhere():
    class Third:
        def start(self, context):
            return self

        def size(self, k, point):
            return 0.01

    assert lo.minimize(
        lo.problems.Procrustes.random(5, rng=0), method=lo.landing(step=Third()), rng=0
    ).success


def test_a_search_is_needed():
    with pytest.raises(TypeError, match="search"):
        lo.Method()


# -- compositions that work ---------------------------------------------------------------------

COMPOSED = {
    "Euclidean, Newton-Schulz, constant": lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Constant(0.01)),
        field=lo.fields.Field(lo.fields.Euclidean(exact=False), None),
        move=lo.moves.NewtonSchulz(tol=1e-6),
    ),
    "canonical, Newton-Schulz, Barzilai-Borwein": RECIPES["composed"](),
    "canonical, one pass": lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Constant(0.02)),
        field=lo.fields.Field(lo.fields.Canonical(), None),
        move=lo.moves.NewtonSchulz(tol=0.5, max_passes=1),
    ),
    "no safe step": lo.Method(search=lo.searches.OpenLoop(lo.steps.Constant(0.01))),
    "safe Barzilai-Borwein": lo.landing(step=lo.steps.BarzilaiBorwein()),
    "monotone": lo.Method(
        search=lo.searches.LineSearch(memory=0.0),
        field=LANDING.field,
        move=lo.moves.NewtonSchulz(tol=1e-4),
    ),
    "pogo": lo.pogo(0.02),
    "pogo, slow normal step": lo.pogo(0.02, lam=0.2),
    "pogo with momentum": lo.pogo(0.005, lo.estimators.Momentum(0.5)),
    "momentum": lo.landing(step=0.005, base=lo.estimators.Momentum(0.5)),
    "nesterov": lo.landing(step=0.005, base=lo.estimators.Momentum(0.5, nesterov=True)),
    "the Euclidean metric": lo.landing(step=0.01, tangent=lo.fields.Euclidean()),
    "another metric": lo.landing(step=0.01, tangent=lo.fields.BetaMetric(0.7)),
    "the exact safe step": lo.landing(step=0.02, safe="exact"),
    "exact, Barzilai-Borwein": lo.landing(step=lo.steps.BarzilaiBorwein(), safe="exact"),
    "line search from a constant": lo.Method(
        search=lo.searches.LineSearch(guess=lo.steps.Constant(0.02)),
        field=LANDING.field,
        move=LANDING.move,
    ),
}


@pytest.mark.parametrize("shape", [(8, 8), (9, 4)], ids=["square", "tall"])
@pytest.mark.parametrize("method", COMPOSED.values(), ids=COMPOSED)
def test_methods_composed_of_parts(method, shape):
    problem = lo.problems.Procrustes.random(shape[1], shape[0], rng=0)
    x0 = lo.stiefel.random(*shape, rng=1)
    sign = lo.stiefel.component(x0)
    result = lo.minimize(problem, x0, method, stop=lo.GradientNorm(rtol=1e-6) & lo.Distance(1e-6))
    assert result.success, result.message
    least = problem.optimum(component=sign)[1]
    assert result.feasible_fun == pytest.approx(least, rel=1e-9)


# -- parts of one's own -------------------------------------------------------------------------


class Halving:
    """A step rule of a user's: no base class, two methods."""

    def start(self, context):
        return self

    def size(self, k, point):
        return 0.02 if point.iteration < 50 else 0.01


class Half:
    """A normal term of a user's, X Delta / 2."""

    lam = 0.5

    def coefficient(self, kernels, delta):
        return kernels.scale(delta, 0.5)


def test_a_step_rule_of_ones_own():
    result = lo.minimize(PROBLEM, START, lo.landing(step=Halving()))
    assert result.success
    assert np.max(result.trace["step"][1:]) <= 0.02
    assert result.nit > 51
    assert result.trace["step"][-1] == 0.01
    expected = naive_landing(START, PROBLEM.grad, lambda k: 0.02, 1.0, 10)
    ten = lo.minimize(PROBLEM, START, lo.landing(step=Halving()), stop=lo.MaxIterations(10))
    np.testing.assert_allclose(ten.x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (7, 3)])
def test_a_normal_term_of_ones_own(shape):
    """Also for square x, whose own short form knows the library's terms only."""
    problem = lo.problems.Procrustes.random(shape[1], shape[0], rng=0)
    x0 = 1.02 * lo.stiefel.random(*shape, rng=1)
    search = lo.searches.OpenLoop(lo.steps.Constant(0.01))
    runs = [
        lo.minimize(
            problem, x0, lo.Method(search=search, field=lo.fields.Field(normal=normal)),
            stop=lo.MaxIterations(9),
        )
        for normal in (Half(), lo.fields.Penalty(0.5))
    ]  # fmt: skip
    np.testing.assert_allclose(runs[0].x, runs[1].x, rtol=0, atol=1e-13)


class Driver:
    """An external solver: whatever has ``drive(oracle, blocks, observer)``."""

    name = "mine"

    def drive(self, oracle, blocks, observer):
        from landingopt.point import Point

        observer.begin()
        point = Point(oracle.space, [])
        point.place(blocks)
        oracle.fill_gradient(point)  # before the observer, which measures what is not there
        observer.start(point)
        while not observer(point):
            x = point.x[0] - 0.005 * point.gradient[0]
            u, _, vh = np.linalg.svd(x, full_matrices=False)
            point.place([u @ vh])
            point.iteration += 1
            oracle.fill_gradient(point)
        return point


def test_a_solver_of_ones_own_comes_in_by_the_same_door():
    result = lo.minimize(PROBLEM, START, Driver(), tol=1e-5)
    assert result.success
    assert result.njev == result.nit + 1
    sign = lo.stiefel.component(START)
    assert result.feasible_fun == pytest.approx(PROBLEM.optimum(component=sign)[1], rel=1e-8)
    assert len(result.trace) == result.nit + 1
