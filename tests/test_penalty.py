"""The penalty method: its gradient, its minimiser in closed form, and the same run as naive loops."""

from __future__ import annotations

import numpy as np
import pytest

import landingopt as lo
from landingopt._xp import H
from landingopt.baselines.penalty import (
    LBFGS,
    Adam,
    GradientDescent,
    Penalty,
    _Penalised,
    penalty,
)
from landingopt.space import Space

DTYPES = ["float64", "complex128"]


def gaussian(rng, shape, dtype="float64"):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def sym(a):
    return (a + H(a)) / 2


def delta(x):
    return H(x) @ x - np.eye(x.shape[-1])


class Projection:
    """f(X) = ||X - B||_F^2, B of given singular values b.

    The singular vectors of the penalty's minimiser are B's, by von Neumann's trace inequality, and its
    singular values m minimise (m - b)^2 + lam (m^2 - 1)^2: 4 lam m^3 + (2 - 4 lam) m - 2 b = 0.
    """

    def __init__(self, shape, dtype="float64", values=(0.4, 1.1, 2.5), seed=0):
        rng = np.random.default_rng(seed)
        u, _, vh = np.linalg.svd(gaussian(rng, shape, dtype), full_matrices=False)
        self.u, self.values, self.vh = u, np.array(values), vh
        self.b = (u * self.values) @ vh
        self.problem = lo.Objective(self.fun, self.grad, shape=shape)

    def fun(self, x):
        return float(np.sum(np.abs(x - self.b) ** 2))

    def grad(self, x):
        return 2 * (x - self.b)

    def minimiser(self, lam):
        roots = [np.roots([4 * lam, 0.0, 2 - 4 * lam, -2 * b]) for b in self.values]
        best = []
        for b, r in zip(self.values, roots, strict=True):
            r = r[np.abs(r.imag) < 1e-8].real
            best.append(r[np.argmin((r - b) ** 2 + lam * (r**2 - 1) ** 2)])
        return (self.u * np.array(best)) @ self.vh


# -- derivatives ------------------------------------------------------------------------------


def difference_error(shape, dtype, rng, weight=1.0):
    """Of the gradient with the penalty's part times ``weight``, against central differences."""
    x, v, b = (gaussian(rng, shape, dtype) for _ in range(3))
    lam = 0.7
    chart = _Penalised(penalty(lam), Space(tuple(shape), lo.Stiefel(), x))

    def value(t):
        y = x + t * v
        chart.place([y])
        return chart.value(np.sum(np.abs(y) ** 4) / 4 + np.sum((np.conj(b) * y).real))

    h = 1e-3
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    gradient = b + np.abs(x) ** 2 * x
    chart.place([x])
    normal = chart.pull([gradient])[0] - gradient
    expected = np.sum((np.conj(gradient + weight * normal) * v).real)
    assert np.allclose(normal, 4 * lam * x @ delta(x), rtol=1e-12)
    return abs(slope - expected) / abs(slope)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (4, 1), (2, 5, 3)], ids=str)
def test_the_gradient_is_that_of_value(rng, shape, dtype):
    assert difference_error(shape, dtype, rng) < 1e-8


def test_differences_reject_the_lam_of_a_field(rng):
    # A field's G + lam X Delta is the gradient of a quarter of the penalty.
    assert difference_error((5, 3), "float64", rng, weight=0.25) > 1e-2


# -- the minimiser ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3), (6, 3)])
@pytest.mark.parametrize("lam", [0.1, 1.0, 50.0])
def test_the_minimiser_is_the_closed_form(shape, dtype, lam):
    data = Projection(shape, dtype)
    expected = data.minimiser(lam)
    assert np.linalg.norm(data.grad(expected) + 4 * lam * expected @ delta(expected)) < 1e-9
    start = lo.stiefel.polar(expected + 0.1 * gaussian(np.random.default_rng(1), shape, dtype))
    result = lo.minimize(data.problem, start, penalty(lam))
    assert result.status is lo.Status.EXTERNAL
    assert np.linalg.norm(result.x - expected) < 1e-6
    assert result.distance == pytest.approx(np.linalg.norm(delta(expected)), rel=1e-5)
    # Far from the manifold, and said so: x, its polar factor, and what the trace ends with.
    assert result.fun == pytest.approx(data.fun(expected), rel=1e-5)
    polar = lo.stiefel.polar(result.x)
    assert np.allclose(result.feasible_x, polar, atol=1e-12)
    assert result.feasible_fun == pytest.approx(data.fun(polar), rel=1e-10)
    assert result.trace["feasible_fun"][-1] == pytest.approx(result.feasible_fun, rel=1e-10)
    assert "L-BFGS-B said" in result.message and "off the manifold" in result.message
    assert f"distance {result.distance:.2e}" in result.message


@pytest.mark.parametrize(
    "optimizer",
    [
        GradientDescent(),
        GradientDescent(momentum=0.9),
        GradientDescent(momentum=0.9, nesterov=True),
        Adam(lambda k: 0.05 * 0.98**k),
    ],
    ids=repr,
)
def test_every_optimizer_finds_it(optimizer):
    data, lam = Projection((6, 3)), 2.0
    result = lo.minimize(
        data.problem, method=penalty(lam, optimizer), stop=lo.MaxIterations(600), rng=0
    )
    assert result.status is lo.Status.MAX_ITERATIONS
    assert np.linalg.norm(result.x - data.minimiser(lam)) < 1e-4


def test_what_the_documentation_says_of_the_minimiser():
    data = Projection((6, 3))
    for lam in (10.0, 1000.0):
        result = lo.minimize(data.problem, method=penalty(lam), rng=0)
        x, d = result.x, delta(result.x)
        g = data.grad(x)
        assert np.allclose(x.T @ g, -4 * lam * x.T @ x @ d, atol=1e-4)
        phi = sym(x.T @ g)
        assert np.allclose(g - x @ phi, 4 * lam * x @ d @ d, atol=1e-4)
        close = 4.0 / lam  # relative, to first order in Delta
        assert result.distance == pytest.approx(np.linalg.norm(phi) / (4 * lam), rel=close)
        norm = np.linalg.norm(phi @ phi) / (4 * lam)
        assert result.gradient_norm == pytest.approx(norm, rel=close)


# -- runs -------------------------------------------------------------------------------------


def test_the_first_step_is_along_the_field_of_a_quarter():
    data = Projection((5, 3))
    x0 = lo.stiefel.random(5, 3, rng=0) * 1.1
    method = penalty(0.25, GradientDescent(0.1))
    result = lo.minimize(data.problem, x0, method, stop=lo.MaxIterations(1))
    assert np.allclose(result.x, x0 - 0.1 * (data.grad(x0) + x0 @ delta(x0)), atol=1e-15)
    assert result.trace["fun"][0] == data.fun(x0)  # where it starts, on the manifold or not


def heavy_ball(eta, beta, nesterov):
    memory = [0.0]

    def update(t, g):
        memory[0] = beta * memory[0] + g
        return eta * (g + beta * memory[0] if nesterov else memory[0])

    return update


def adam(eta, beta1=0.9, beta2=0.999, epsilon=1e-8):
    memory = [0.0, 0.0]

    def update(t, g):
        memory[0] = beta1 * memory[0] + (1 - beta1) * g
        memory[1] = beta2 * memory[1] + (1 - beta2) * np.abs(g) ** 2
        first, second = memory[0] / (1 - beta1 ** (t + 1)), memory[1] / (1 - beta2 ** (t + 1))
        return eta * first / (np.sqrt(second) + epsilon)

    return update


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("optimizer", "fresh"),
    [
        (GradientDescent(0.01, momentum=0.8), lambda: heavy_ball(0.01, 0.8, False)),
        (GradientDescent(0.01, momentum=0.8, nesterov=True), lambda: heavy_ball(0.01, 0.8, True)),
        (Adam(0.05, beta2=0.9), lambda: adam(0.05, beta2=0.9)),
    ],
    ids=["heavy ball", "nesterov", "adam"],
)
def test_optimizers_are_naive_loops_also_along_a_path(optimizer, fresh, dtype):
    problem = lo.problems.PCA.random(8, 3, rng=0, dtype=dtype)
    x = x0 = lo.stiefel.random(8, 3, rng=0, dtype=dtype)
    update, values = fresh(), []
    for t in range(31):
        values.append(problem.fun(x))
        lam = (0.5, 1.0, 2.0)[min(t // 10, 2)]
        x = x - update(t, problem.grad(x) + 4 * lam * x @ delta(x))
    method = penalty(2.0, optimizer, path=(0.5, 1.0), stage=10)
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(30))
    assert np.allclose(result.trace["fun"], values, rtol=1e-11)


def test_a_path_leads_lbfgs_from_one_minimiser_to_the_next():
    data = Projection((6, 3))
    x0 = lo.stiefel.random(6, 3, rng=0)
    weights = (0.5, 5.0, 50.0)
    seen = []
    method = penalty(weights[-1], path=weights[:-1], stage=200)
    result = lo.minimize(
        data.problem, x0, method, callback=lambda row: seen.append(row.x.copy()) and None
    )
    # Each weight's minimiser is passed, and the last one is the end.
    for lam in weights:
        assert min(np.linalg.norm(x - data.minimiser(lam)) for x in seen) < 1e-6
    assert np.linalg.norm(result.x - data.minimiser(50.0)) < 1e-6
    assert result.status is lo.Status.EXTERNAL
    assert len(seen) == result.nit + 1
    # By the count: stage after stage, the last one to the end.
    short = penalty(weights[-1], path=weights[:-1], stage=4)
    distances = [
        lo.minimize(data.problem, x0, short, stop=lo.MaxIterations(k)).distance for k in (4, 8, 40)
    ]
    assert distances[0] > distances[1] > distances[2]


def test_without_a_step_it_is_the_curvatures_with_the_penaltys():
    problem = lo.problems.PCA.random(8, 3, rng=0)
    method = penalty(4.0, GradientDescent(), path=(1.0,), stage=5)
    result = lo.minimize(problem, method=method, stop=lo.MaxIterations(10), rng=0)
    step = result.trace["step"]
    assert np.isnan(step[0])
    assert np.allclose(1 / step[6:] - 1 / step[1], 2 * 8.0 * 3.0)
    assert np.all(step[1:6] == step[1])
    assert result.njev == 11 + 4  # four for the curvature


def test_minibatches():
    data = np.random.default_rng(0).standard_normal((1000, 8)) * np.arange(8, 0, -1) / 8
    problem = lo.LinearModelSum(
        lambda u, terms: -0.5 * np.sum(u**2, axis=1), lambda u, terms: -u, data, p=2
    )
    best = lo.minimize(problem, rng=0).fun
    for estimator in (lo.estimators.MiniBatch(40), lo.estimators.Saga(40)):
        for optimizer in (GradientDescent(), Adam(lo.steps.Decay(0.1))):
            method = penalty(1.0, optimizer, estimator=estimator)
            assert method.stochastic
            result = lo.minimize(
                problem, method=method, stop=lo.MaxEpochs(48), record=lo.EveryEpoch(3), rng=0
            )
            assert result.status is lo.Status.MAX_EPOCHS
            assert result.feasible_fun - best < 0.1 * (result.trace["fun"][0] - best)
            assert 0.01 < result.distance < 0.5


class Counted:
    """A problem that counts, and that returns the same memory every time."""

    def __init__(self, shape, both):
        self.data = Projection(shape)
        self.values = self.gradients = 0
        self.buffer = np.empty(shape)
        parts = {"value_and_gradient": self.both} if both else {"fun": self.fun, "grad": self.grad}
        self.problem = lo.Objective(shape=shape, **parts)

    def fun(self, x):
        self.values += 1
        return self.data.fun(x)

    def grad(self, x):
        self.gradients += 1
        self.buffer[...] = self.data.grad(x)
        return self.buffer

    def both(self, x):
        return self.fun(x), self.grad(x)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("optimizer", [LBFGS(), GradientDescent(0.01, momentum=0.5)], ids=repr)
def test_counts_and_shared_memory(optimizer, both):
    shape = (6, 3)
    x0 = lo.stiefel.random(*shape, rng=0)
    method = penalty(3.0, optimizer, path=(1.0,), stage=5)
    counted, stop = Counted(shape, both), lo.MaxIterations(12)
    result = lo.minimize(counted.problem, x0, method, stop=stop, record=lo.Every(5))
    expected = lo.minimize(counted.data.problem, x0, method, stop=stop)
    assert np.allclose(result.x, expected.x, atol=1e-12)
    assert result.nit == 12
    assert result.trace["iteration"].tolist() == [0, 5, 10, 12]
    assert np.isfinite(result.trace["gradient_norm"]).all()
    if isinstance(optimizer, LBFGS):
        assert result.nfev == result.njev >= 13
    else:
        assert result.njev == 13
    assert result.trace["njev"][-1] == result.njev == expected.njev
    # f is measured at the polar factors of the rows, and its gradient once, at that of the start.
    assert counted.gradients - result.njev <= (6 if both else 1)


@pytest.mark.parametrize("optimizer", [LBFGS(), GradientDescent(0.01)], ids=repr)
def test_every_exit(optimizer):
    data = Projection((5, 3))
    method = penalty(1.0, optimizer)
    x0 = lo.stiefel.random(5, 3, rng=0)
    zero = lo.minimize(data.problem, x0, method, stop=lo.MaxIterations(0))
    assert zero.nit == 0 and np.array_equal(zero.x, x0)
    stopped = lo.minimize(data.problem, x0, method, callback=lambda row: row.iteration == 3)
    assert stopped.status is lo.Status.CALLBACK and stopped.nit == 3
    assert lo.minimize(data.problem, x0, method, stop=lo.Timeout(0.0)).status is lo.Status.TIMEOUT
    first = lo.Objective(lambda x: np.nan, data.grad, shape=(5, 3))
    with pytest.raises(lo.SolveError, match="not finite"):
        lo.minimize(first, x0, method)
    result = lo.minimize(first, x0, method, on_failure="return")
    assert result.status is lo.Status.NONFINITE and result.nit == 0
    # A gradient norm can be asked for without the distance.
    stop = lo.GradientNorm(atol=2 * lo.minimize(data.problem, x0, penalty(1.0)).gradient_norm)
    met = lo.minimize(data.problem, x0, method, stop=stop)
    assert met.status is lo.Status.CONVERGED


def test_a_penalty_that_does_not_hold():
    data = Projection((5, 3), values=(4.0, 5.0, 6.0))
    with pytest.raises(lo.SolveError, match=r"lam = 0.01 is too small a penalty") as caught:
        lo.minimize(data.problem, method=penalty(0.01), rng=0)
    assert caught.value.result.status is lo.Status.LEFT_TUBE


def test_products_and_stacks():
    data, target = Projection((5, 3)), np.arange(3.0)
    problem = lo.Objective(
        lambda v: data.fun(v[0]) + float(np.sum((v[1] - target) ** 2)),
        lambda v: (data.grad(v[0]), 2 * (v[1] - target)),
        shape=((5, 3), (3,)),
        constraint=(lo.Stiefel(), lo.Euclidean()),
    )
    for optimizer in (LBFGS(), GradientDescent()):
        result = lo.minimize(
            problem, method=penalty(2.0, optimizer), stop=lo.MaxIterations(2000), rng=0
        )
        assert np.linalg.norm(result.x[0] - data.minimiser(2.0)) < 1e-5
        assert np.allclose(result.x[1], target, atol=1e-6)  # no penalty on a free block
    stack = lo.problems.Procrustes.random(4, 5, stack=(3,), rng=0)
    x0 = lo.stiefel.random(5, 4, stack=(3,), rng=0)
    for optimizer in (LBFGS(), GradientDescent(0.002)):
        method, stop = penalty(10.0, optimizer), lo.MaxIterations(400)
        together = lo.minimize(stack, x0, method, stop=stop)
        for i in range(3):
            alone = lo.problems.Procrustes(stack.A[i], stack.B[i])
            run = lo.minimize(alone, x0[i], method, stop=stop)
            assert np.allclose(together.x[i], run.x, atol=1e-4)


def test_wide():
    data = Projection((6, 3))
    wide = lo.Objective(lambda x: data.fun(x.T), lambda x: data.grad(x.T).T, shape=(3, 6))
    result = lo.minimize(wide, method=penalty(1.0), rng=0)
    assert np.linalg.norm(result.x.T - data.minimiser(1.0)) < 1e-5


def test_in_other_array_libraries(arrays):
    for shape, dtype in (((3, 3), "float64"), ((6, 3), "complex128")):
        data = Projection(shape, dtype)
        fun = (lambda q: lambda x: q.fun(arrays.host(x)))(data)
        problem = lo.Objective(fun, arrays.wrap(data.grad), shape=shape)
        x0 = lo.stiefel.random(*shape, rng=0, dtype=dtype)
        for optimizer in (LBFGS(), GradientDescent(0.01, momentum=0.5), Adam(0.01)):
            method, stop = penalty(2.0, optimizer, path=(1.0,), stage=4), lo.MaxIterations(10)
            expected = lo.minimize(data.problem, x0, method, stop=stop)
            result = lo.minimize(problem, arrays.to(x0), method, stop=stop)
            assert np.allclose(arrays.host(result.x), expected.x, atol=1e-11)


def test_single_precision_stays():
    problem = lo.problems.Procrustes.random(6, 8, rng=0, dtype=np.float32)
    for optimizer in (LBFGS(), GradientDescent(momentum=0.8), Adam(0.01)):
        method = penalty(10.0, optimizer)
        result = lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(60))
        assert result.x.dtype == np.float32
        assert result.feasible_fun < result.trace["feasible_fun"][0]


def test_compare():
    problem = lo.problems.PCA.random(12, 3, rng=0)
    methods = [penalty(1.0), penalty(100.0, path=(1.0, 10.0)), lo.landing()]
    comparison = lo.compare(problem, methods, rng=0, repeats=1)
    assert not comparison.errors
    assert [row["method"] for row in comparison.rows() if row["solved"]] == ["landing"]
    names = list(comparison.results)
    assert names == ["penalty(1, LBFGS)", "penalty(1...100, LBFGS)", "landing"]
    columns = [comparison.results[name].trace.columns for name in names]
    assert columns[0] == columns[2]
    # Its feasible value is close to the optimum's, its distance is not.
    gaps = [comparison.results[name].feasible_fun - comparison.reference_value for name in names]
    assert -1e-12 < gaps[1] <= gaps[0] < 1e-3
    assert comparison.results[names[0]].distance > 0.01


def test_recipes_are_values():
    assert penalty(1.0) == penalty(1.0, LBFGS(), path=[]) == Penalty(1.0)
    assert hash(penalty(1.0, path=[0.5])) == hash(penalty(1.0, path=(0.5,)))
    assert penalty(2.0, Adam(0.1)).name == "penalty(2, Adam)"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: penalty(0.0), ValueError, "lam must be a positive number"),
        (lambda: penalty("strong"), ValueError, "lam must be a positive number"),
        (lambda: penalty(np.nan), ValueError, "lam must be a positive number"),
        (lambda: penalty(1.0, path=(0.1, 0.1)), ValueError, "path must increase to lam"),
        (lambda: penalty(1.0, path=(0.1, 2.0)), ValueError, "path must increase to lam"),
        (lambda: penalty(1.0, stage=0), ValueError, "stage must be a whole number"),
        (lambda: penalty(1.0, "adam"), TypeError, "optimizer must be LBFGS"),
        (
            lambda: penalty(1.0, estimator=lo.estimators.MiniBatch(8)),
            ValueError,
            "optimizer=GradientDescent",
        ),
    ],
)
def test_errors_say_what_to_do(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_lbfgs_needs_values():
    data = Projection((5, 3))
    blind = lo.Objective(grad=data.grad, shape=(5, 3))
    with pytest.raises(TypeError, match="reads f, and this problem has no fun"):
        lo.minimize(blind, method=penalty(1.0), rng=0)
    result = lo.minimize(
        blind, method=penalty(1.0, GradientDescent(0.01)), rng=0, stop=lo.MaxIterations(5)
    )
    assert result.nit == 5


# -- where it starts, and where it ends ---------------------------------------------------------


@pytest.mark.parametrize("optimizer", [LBFGS(), GradientDescent(0.002), Adam(0.01)], ids=repr)
@pytest.mark.parametrize("stop", [None, lo.MaxIterations(3000)], ids=["default", "limit"])
def test_a_critical_point_of_f_is_no_end(optimizer, stop):
    """X = I is critical for f = -<D, X>, D diagonal; the penalty's minimiser is elsewhere."""
    d, lam = np.array([1.0, 2.0, 5.0]), 10.0
    problem = lo.Objective(
        fun=lambda x: -float(d @ np.diag(x)), grad=lambda x: -np.diag(d), shape=(3, 3)
    )
    result = lo.minimize(problem, np.eye(3), penalty(lam, optimizer), stop=stop)
    roots = [max(np.roots([4 * lam, 0.0, -4 * lam, -s]).real) for s in d]
    np.testing.assert_allclose(
        result.x, np.diag(roots), atol=5e-3 if optimizer == Adam(0.01) else 1e-6
    )
    landed = lo.minimize(problem, np.eye(3))
    assert landed.nit == 0
    assert landed.success


def test_no_step_where_none_is_allowed():
    problem = Projection((6, 3)).problem
    result = lo.minimize(problem, method=penalty(1.0), stop=lo.MaxIterations(0), rng=0)
    assert result.status == lo.Status.MAX_ITERATIONS
    assert result.nit == 0


def test_the_comparison_says_that_it_has_crossed():
    problem = lo.problems.Procrustes.random(6, rng=3)
    crossed = 0
    for seed in range(4):
        methods = {"landing": lo.landing(), "penalty": penalty(0.2)}
        comparison = lo.compare(problem, methods, rng=seed, repeats=1)
        start = lo.stiefel.component(comparison.x0)
        elsewhere = comparison.results["penalty"].component != start
        crossed += elsewhere
        assert ("penalty has ended in another component" in str(comparison)) == elsewhere
        assert "landing has ended" not in str(comparison)
        assert ("stayed in the component" in comparison.results["penalty"].message) is False
    assert 0 < crossed < 4


def test_a_point_without_full_rank_is_no_reason_to_lose_the_run():
    """No matrix with orthonormal columns is the closest to it."""
    singular = lo.Objective(
        fun=lambda x: 100.0 * float(np.sum(x[:, 0] ** 2)),
        grad=lambda x: 200.0 * x * np.array([1.0, 0, 0, 0]),
        shape=(4, 4),
    )
    # One step from the manifold: the first column becomes 0 exactly.
    result = lo.minimize(
        singular, np.eye(4), penalty(1.0, GradientDescent(1 / 200.0)), stop=lo.MaxIterations(1)
    )
    assert np.all(result.x[:, 0] == 0.0)
    assert np.all(np.isnan(result.feasible_x))
    assert np.isnan(result.feasible_fun)
    assert result.component is None
    assert "not full rank" in result.message


def test_of_a_stack_the_message_names_the_components():
    problem = lo.problems.Procrustes.random(6, stack=(4,), rng=0)
    x0 = lo.stiefel.random(6, stack=(4,), rng=0)
    result = lo.minimize(problem, x0, penalty(1.0))
    assert not np.array_equal(result.component, lo.stiefel.component(x0))
    assert f"has ended in the component det x = {result.component.tolist()}" in result.message
