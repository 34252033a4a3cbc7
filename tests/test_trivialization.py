"""Trivializations: derivatives, solutions, and the same run as naive loops and as retractions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

import landingopt as lo
from landingopt._xp import H, kernels
from landingopt.baselines._maps import cayley, expm_and_adjoint, exponential
from landingopt.baselines.trivialization import (
    LBFGS,
    Adam,
    GradientDescent,
    Trivialization,
    _Bases,
    trivialization,
)
from landingopt.space import Space

MAPS = ["exponential", "cayley"]
SHAPES = [(5, 5), (7, 4), (5, 4), (6, 1), (2, 2), (4, 7), (2, 6, 3), (2, 4, 4)]
maps = pytest.mark.parametrize("phi", MAPS)


def gaussian(rng, shape, dtype="float64"):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def skew(a):
    return (a - H(a)) / 2


class Quartic:
    """f(X) = Re <B, X> + Re <X, K X> + sum |X|^4 / 4: nothing symmetric, nothing even."""

    def __init__(self, rng, shape, dtype="float64"):
        self.b = gaussian(rng, shape, dtype)
        k = gaussian(rng, (shape[-2], shape[-2]), dtype)
        self.k = k + H(k)
        self.shape = tuple(shape)

    def fun(self, x):
        parts = np.conj(self.b) * x + np.conj(x) * (self.k @ x)
        return float(np.sum(parts.real) + np.sum(np.abs(x) ** 4) / 4)

    def grad(self, x):
        return self.b + 2 * self.k @ x + np.abs(x) ** 2 * x

    @property
    def problem(self):
        return lo.Objective(self.fun, self.grad, shape=self.shape)


def started(phi, x0):
    """The chart of one array at x0, and its space."""
    space = Space(tuple(x0.shape), lo.Stiefel(), x0)
    chart = _Bases(trivialization(phi), space)
    chart.start(space.to_blocks(x0.copy()))
    return chart, space


# -- derivatives ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("size", [1e-3, 0.3, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("is_skew", [True, False])
def test_the_adjoint_of_expm_is_scipys(rng, dtype, size, is_skew):
    a, g = gaussian(rng, (7, 7), dtype), gaussian(rng, (7, 7), dtype)
    a = skew(a) if is_skew else a
    size = size if is_skew else min(size, 10.0)  # exp(60) has no digits left for the small ones
    a *= size / np.linalg.norm(a)
    e, adjoint = expm_and_adjoint(kernels(a, ()), a)
    expected, derivative = scipy.linalg.expm_frechet(H(a), g)
    tol = 1e-14 * max(1.0, size)
    assert np.linalg.norm(e - H(expected)) <= tol * np.linalg.norm(expected)
    assert np.linalg.norm(adjoint(g) - derivative) <= tol * np.linalg.norm(derivative)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_gradient_is_torchs(rng, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    quartic = Quartic(rng, shape)
    x0 = lo.stiefel.random(*shape, rng=1)
    n, p = shape
    chart, _ = started("exponential", x0)
    # phi(M) X_0 with the full n x n matrix of the tangent Z = M X_0, by autograd.
    m = skew(gaussian(rng, (n, n)))
    if n > p:
        normal = np.eye(n) - x0 @ x0.T
        m -= normal @ m @ normal
    z = m if n == p else m @ x0
    chart.place([z])
    ours = chart.pull([quartic.grad(chart.x[0])])[0]

    def matrix(z):
        z, base = torch.as_tensor(z), torch.as_tensor(x0)
        if n == p:
            return (z - z.T) / 2
        outer = (z - base @ (base.T @ z) / 2) @ base.T
        return outer - outer.T

    tangent = z if n == p else x0 @ skew(x0.T @ z) + z - x0 @ (x0.T @ z)
    t = torch.tensor(tangent, requires_grad=True)
    x = torch.matrix_exp(matrix(t)) @ torch.as_tensor(x0)
    assert np.allclose(x.detach().numpy(), chart.x[0], atol=1e-14)
    b, k = torch.as_tensor(quartic.b), torch.as_tensor(quartic.k)
    (torch.sum(b * x) + torch.sum(x * (k @ x)) + torch.sum(x**4) / 4).backward()
    expected = t.grad.numpy()
    if n > p:  # the part of Z along which nothing moves
        expected = x0 @ skew(x0.T @ expected) + expected - x0 @ (x0.T @ expected)
    assert np.linalg.norm(ours - expected) <= 1e-13 * np.linalg.norm(expected)


def difference_error(chart, space, quartic, pull, rng, size):
    """The relative error of ``pull`` against central differences of f, along a random direction."""
    shape = space.blocks[0].inner_shape
    c, v = gaussian(rng, shape, space.dtype), gaussian(rng, shape, space.dtype)
    if shape[-1] == shape[-2]:
        c, v = skew(c), skew(v)
    c *= size / np.linalg.norm(c)
    h = 1e-4

    def value(t):
        chart.place([c + t * v])
        return quartic.fun(space.to_user(chart.x))

    # Of fourth order: rounding and truncation are both below 1e-10.
    slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    chart.place([c])
    g = pull(space.to_blocks(quartic.grad(space.to_user(chart.x))))[0]
    return abs(slope - np.sum((np.conj(g) * v).real)) / (np.linalg.norm(g) * np.linalg.norm(v))


@maps
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_central_differences(rng, phi, shape, dtype):
    quartic = Quartic(rng, shape, dtype)
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=2, dtype=dtype)
    chart, space = started(phi, x0)
    for size in (1e-6, 0.5, 4.0):
        assert difference_error(chart, space, quartic, chart.pull, rng, size) < 1e-8


@pytest.mark.parametrize("shape", [(5, 5), (7, 4)])
@maps
def test_differences_reject_a_gradient_without_the_derivative_of_the_map(rng, phi, shape):
    quartic = Quartic(rng, shape)
    chart, space = started(phi, lo.stiefel.random(*shape, rng=2))

    def wrong(gradient):
        """What is right at M = 0 alone: skew(G X_0^H), or the tangent part of G."""
        chart._parts[0]._mapped = None
        return chart.pull(gradient)

    def at_x(gradient):
        x, g = chart.x[0], gradient[0]
        return [skew(g @ H(x)) if shape[0] == shape[1] else g - x @ (x.T @ g + g.T @ x) / 2]

    for pull in (wrong, at_x):
        assert difference_error(chart, space, quartic, pull, rng, 1.0) > 1e-2
        assert difference_error(chart, space, quartic, pull, rng, 1e-9) < 1e-6


# -- the maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 5), (7, 4), (5, 4), (9, 1)])
def test_maps_are_those_of_the_full_matrix(rng, shape, dtype):
    n, p = shape
    x0 = lo.stiefel.random(n, p, rng=0, dtype=dtype)
    z = gaussian(rng, shape, dtype)
    if n == p:
        m = skew(z)
        z = m
    else:
        z = x0 @ skew(H(x0) @ z) + z - x0 @ (H(x0) @ z)
        projector = np.eye(n) - x0 @ H(x0) / 2
        m = projector @ z @ H(x0) - x0 @ H(z) @ projector
    one = np.eye(n)
    expected = {
        "exponential": scipy.linalg.expm(m) @ x0,
        "cayley": np.linalg.solve(one - m / 2, one + m / 2) @ x0,
    }
    for phi, x in expected.items():
        chart, _ = started(phi, x0)
        chart.place([z])
        assert np.linalg.norm(chart.x[0] - x) < 1e-13
        assert lo.stiefel.distance(chart.x[0]) < 2e-14


@pytest.mark.parametrize("phi", [exponential, cayley])
def test_what_is_not_finite_is_not_ok(phi):
    a = np.array([[0.0, np.inf], [-np.inf, 0.0]])
    with np.errstate(all="ignore"):
        assert not phi(kernels(a, ()), a, None).ok
        assert not phi(kernels(a, ()), np.zeros((2, 2)), a).ok


# -- runs -------------------------------------------------------------------------------------

OPTIMIZERS = [
    LBFGS(),
    GradientDescent(momentum=0.9),
    GradientDescent(momentum=0.9, nesterov=True),
    Adam(lambda k: 0.1 * 0.97**k),
]


@maps
@pytest.mark.parametrize("dynamic", [0, 10])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_solves_procrustes_to_the_closed_form(phi, optimizer, dynamic):
    problem = lo.problems.Procrustes(np.diag([1.0, 1.3, 1.7, 2.0]), gaussian(
        np.random.default_rng(0), (4, 4)))  # fmt: skip
    best, fun = problem.optimum(component=1)
    x0 = best @ scipy.linalg.expm(skew(gaussian(np.random.default_rng(1), (4, 4))))
    method = trivialization(phi, optimizer, dynamic=dynamic)
    stop = lo.GradientNorm(rtol=1e-6) | lo.MaxIterations(700)
    result = lo.minimize(problem, x0, method, stop=stop)
    assert abs(result.fun - fun) <= 1e-9 * fun or isinstance(optimizer, Adam)
    assert abs(result.fun - fun) <= 1e-2 * fun
    assert result.component == 1
    # On the manifold to rounding, at every iterate.
    assert np.max(result.trace["distance"]) < 1e-14
    # The run starts at x0 itself.
    assert result.trace["fun"][0] == problem.fun(x0)
    assert result.trace["nfev"][0] == (1 if isinstance(optimizer, LBFGS) else 0)


@maps
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_solves_tall_and_wide_and_complex(phi, dtype):
    problem = lo.problems.PCA.random(12, 3, rng=0, dtype=dtype)
    value = problem.optimum()[1]
    for dynamic in (None, 15):
        result = lo.minimize(problem, method=trivialization(phi, dynamic=dynamic), rng=1)
        assert result.fun == pytest.approx(value, rel=1e-10)
        assert result.distance < 1e-13
    wide = lo.Objective(lambda x: problem.fun(H(x)), lambda x: H(problem.grad(H(x))), shape=(3, 12))
    x0 = lo.stiefel.random(3, 12, rng=0, dtype=dtype)
    result = lo.minimize(wide, x0, trivialization(phi))
    assert result.x.shape == (3, 12)
    assert result.fun == pytest.approx(value, rel=1e-10)


def test_a_start_off_the_manifold_is_projected_and_left_alone(rng):
    problem = lo.problems.Procrustes.random(5, rng=0)
    x0 = gaussian(rng, (5, 5))
    kept = x0.copy()
    result = lo.minimize(problem, x0, trivialization(), stop=lo.MaxIterations(2))
    assert np.array_equal(x0, kept)
    assert result.trace["fun"][0] == pytest.approx(problem.fun(lo.stiefel.polar(x0)), rel=1e-12)


def naive(problem, x0, steps, update, phi=scipy.linalg.expm):
    """f(expm(M) X_0) step by step, with SciPy's derivative; the values of f."""
    m, values = np.zeros_like(x0), []
    for t in range(steps + 1):
        x = phi(m) @ x0
        values.append(problem.fun(x))
        e = problem.grad(x) @ x0.T
        m = m - update(t, skew(scipy.linalg.expm_frechet(m.T, e, compute_expm=False)))
    return values


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
        memory[1] = beta2 * memory[1] + (1 - beta2) * g * g
        first, second = memory[0] / (1 - beta1 ** (t + 1)), memory[1] / (1 - beta2 ** (t + 1))
        return eta * first / (np.sqrt(second) + epsilon)

    return update


@pytest.mark.parametrize(
    ("optimizer", "fresh"),
    [
        (GradientDescent(0.02), lambda: heavy_ball(0.02, 0.0, False)),
        (GradientDescent(0.02, momentum=0.8), lambda: heavy_ball(0.02, 0.8, False)),
        (GradientDescent(0.02, momentum=0.8, nesterov=True), lambda: heavy_ball(0.02, 0.8, True)),
        (Adam(0.05, beta2=0.9), lambda: adam(0.05, beta2=0.9)),
    ],
    ids=["plain", "heavy ball", "nesterov", "adam"],
)
def test_optimizers_are_naive_loops_on_the_matrix(optimizer, fresh):
    problem = lo.problems.Procrustes.random(5, rng=3)
    x0 = lo.stiefel.random(5, rng=4)
    expected = naive(problem, x0, 30, fresh())
    for dynamic in (None, 1000):  # a base that is never reached changes nothing
        method = trivialization(optimizer=optimizer, dynamic=dynamic)
        result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(30))
        assert np.allclose(result.trace["fun"], expected, rtol=1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("shape", [(5, 5), (8, 3)])
def test_static_is_dynamic_at_infinity(optimizer, shape):
    quartic = Quartic(np.random.default_rng(0), shape)
    x0 = lo.stiefel.random(*shape, rng=0)
    stop = lo.MaxIterations(25)
    runs = []
    for k in (None, 0, 26, 7):
        method = trivialization(optimizer=optimizer, dynamic=k)
        runs.append(lo.minimize(quartic.problem, x0, method, stop=stop, rng=0).trace["fun"])
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])
    # A base that moves makes another run, which is the same up to there.
    assert np.allclose(runs[0][:8], runs[3][:8], rtol=1e-13)
    assert not np.allclose(runs[0][9:], runs[3][9:], rtol=1e-6)


@pytest.mark.parametrize(
    ("phi", "retraction"),
    [
        ("exponential", lo.retractions.Exponential("canonical")),
        ("cayley", lo.retractions.Cayley()),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_every_step_a_new_base_is_riemannian_gradient_descent(phi, retraction, shape, dtype):
    quartic = Quartic(np.random.default_rng(0), shape, dtype)
    x0 = lo.stiefel.random(*shape, rng=1, dtype=dtype)
    seen = {}
    for name, method in {
        "dynamic": trivialization(phi, GradientDescent(0.01), dynamic=1),
        "retraction": lo.riemannian(retraction, step=0.01),
    }.items():
        seen[name] = []
        lo.minimize(
            quartic.problem, x0, method, stop=lo.MaxIterations(40),
            callback=lambda row, name=name: seen[name].append(row.x.copy()) and None,
        )  # fmt: skip
    assert len(seen["dynamic"]) == 41
    for ours, theirs in zip(seen["dynamic"], seen["retraction"], strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-12


def test_without_a_step_it_is_the_one_of_riemannian_descent():
    problem = lo.problems.Procrustes.random(5, rng=0)
    stop = lo.MaxIterations(3)
    ours = lo.minimize(
        problem, method=trivialization(optimizer=GradientDescent()), stop=stop, rng=1
    )
    theirs = lo.minimize(problem, method=lo.riemannian(), stop=stop, rng=1)
    assert ours.trace["step"][-1] == pytest.approx(theirs.trace["step"][-1], rel=1e-12)
    assert ours.njev == theirs.njev


def test_a_step_from_the_curvature():
    problem = lo.problems.Procrustes.random(5, rng=0)
    stop = lo.MaxIterations(3)
    steps = []
    for rule in (None, lo.steps.FromCurvature(0.25)):
        method = trivialization(optimizer=GradientDescent(rule))
        steps.append(lo.minimize(problem, method=method, stop=stop, rng=1).trace["step"][-1])
    assert steps[1] == pytest.approx(steps[0] / 2, rel=1e-12)


def test_minibatches_are_those_of_riemannian_sgd():
    problem = lo.problems.ICA.random(5, 640, rng=0)
    x0 = lo.stiefel.random(5, rng=0)
    draws = lo.samplers.Replay([[i, i + 7, (5 * i) % 640] for i in range(30)])
    batches = lo.estimators.MiniBatch(3, draws)
    rule = lo.steps.Decay(0.1)
    options = dict(stop=lo.MaxIterations(30), record=lo.Every(10), rng=0)
    method = trivialization(optimizer=GradientDescent(rule), dynamic=1, estimator=batches)
    assert method.stochastic and not trivialization().stochastic
    ours = lo.minimize(problem, x0, method, **options)
    sgd = lo.riemannian(lo.retractions.Exponential(), step=rule, estimator=batches)
    theirs = lo.minimize(problem, x0, sgd, **options)
    assert np.allclose(ours.x, theirs.x, atol=1e-12)
    assert ours.njev == theirs.njev == 30
    assert np.allclose(ours.trace["epoch"], 3 * np.arange(0, 31, 10) / 640)


@pytest.mark.parametrize("estimator", [lo.estimators.MiniBatch(40), lo.estimators.Svrg(40)])
def test_finite_sums_are_solved(estimator):
    data = np.random.default_rng(0).standard_normal((1000, 8)) * np.arange(8, 0, -1) / 8
    problem = lo.LinearModelSum(
        lambda u, terms: -0.5 * np.sum(u**2, axis=1), lambda u, terms: -u, data, p=2
    )
    best = lo.minimize(problem, rng=0).fun
    for optimizer in (GradientDescent(), GradientDescent(momentum=0.5), Adam(lo.steps.Decay(0.1))):
        method = trivialization("cayley", optimizer, estimator=estimator, dynamic=25)
        result = lo.minimize(
            problem, method=method, stop=lo.MaxEpochs(12), record=lo.EveryEpoch(3), rng=0
        )
        assert result.status is lo.Status.MAX_EPOCHS
        assert result.fun - best < 0.02 * (result.trace["fun"][0] - best)
        assert result.distance < 1e-13


# -- what comes along -------------------------------------------------------------------------


class Counted:
    """A quartic that counts, and that returns the same memory every time."""

    def __init__(self, shape, both):
        self.quartic = Quartic(np.random.default_rng(0), shape)
        self.values = self.gradients = 0
        self.buffer = np.empty(shape)
        parts = {"value_and_gradient": self.both} if both else {"fun": self.fun, "grad": self.grad}
        self.problem = lo.Objective(shape=shape, **parts)

    def fun(self, x):
        self.values += 1
        return self.quartic.fun(x)

    def grad(self, x):
        self.gradients += 1
        self.buffer[...] = self.quartic.grad(x)
        return self.buffer

    def both(self, x):
        return self.fun(x), self.grad(x)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dynamic", [None, 4])
@pytest.mark.parametrize("optimizer", [LBFGS(), GradientDescent(0.01, momentum=0.5)], ids=repr)
def test_counts_and_shared_memory(optimizer, dynamic, both):
    shape = (6, 3)
    x0 = lo.stiefel.random(*shape, rng=0)
    method = trivialization(optimizer=optimizer, dynamic=dynamic)
    stop, record = lo.MaxIterations(20), lo.Every(3)
    counted = Counted(shape, both)
    result = lo.minimize(counted.problem, x0, method, stop=stop, record=record)
    clean = Quartic(np.random.default_rng(0), shape).problem
    expected = lo.minimize(clean, x0, method, stop=stop)
    assert np.allclose(result.x, expected.x, atol=1e-12)
    assert result.nit == 20
    if isinstance(optimizer, LBFGS):
        # Together, once a trial, and not again where the base changes; the observer needs neither.
        assert result.nfev == result.njev >= 21
        assert counted.gradients - result.njev in (0, 1)
        assert counted.values - result.nfev == 1  # f at feasible_x
    else:
        assert result.njev == 21
        assert result.nfev == (21 if both else 0)
    assert result.trace["njev"][-1] == result.njev
    assert result.trace["iteration"].tolist() == [0, 3, 6, 9, 12, 15, 18, 20]


def test_lbfgs_ends_where_scipy_does(rng):
    # A wrong gradient: no lower value along what SciPy takes for descent.
    quartic = Quartic(rng, (4, 4))
    problem = lo.Objective(quartic.fun, lambda x: -quartic.grad(x), shape=(4, 4))
    result = lo.minimize(problem, method=trivialization(), rng=0)
    assert result.status is lo.Status.EXTERNAL
    assert not result.success
    assert "L-BFGS-B said: ABNORMAL" in result.message
    # SciPy's own tolerances, where they are asked for.
    method = trivialization(optimizer=LBFGS(ftol=1e-3))
    result = lo.minimize(quartic.problem, method=method, rng=0, tol=1e-12)
    assert result.status is lo.Status.EXTERNAL
    assert "RELATIVE REDUCTION OF F" in result.message
    assert result.trace["iteration"].tolist() == list(range(result.nit + 1))
    # At the solution it is ours.
    again = lo.minimize(quartic.problem, result.x, trivialization(), tol=1e-4)
    assert again.status is lo.Status.CONVERGED
    assert lo.minimize(quartic.problem, again.x, trivialization(), tol=1.0).nit == 0


@pytest.mark.parametrize("optimizer", [LBFGS(), GradientDescent(0.01)], ids=repr)
def test_every_exit(optimizer):
    quartic = Quartic(np.random.default_rng(0), (5, 2))
    method = trivialization(optimizer=optimizer)
    x0 = lo.stiefel.random(5, 2, rng=0)
    zero = lo.minimize(quartic.problem, x0, method, stop=lo.MaxIterations(0))
    assert zero.nit == 0 and np.array_equal(zero.x, x0)
    stopped = lo.minimize(quartic.problem, x0, method, callback=lambda row: row.iteration == 3)
    assert stopped.status is lo.Status.CALLBACK and stopped.nit == 3
    slow = lo.minimize(quartic.problem, x0, method, stop=lo.Timeout(0.0))
    assert slow.status is lo.Status.TIMEOUT
    calls = [0]

    def broken(x):
        calls[0] += 1
        return quartic.grad(x) * (np.nan if calls[0] > 4 else 1.0)

    problem = lo.Objective(quartic.fun, broken, shape=(5, 2))
    if isinstance(optimizer, GradientDescent):
        with pytest.raises(lo.SolveError, match="not finite") as caught:
            lo.minimize(problem, x0, method)
        assert caught.value.result.status is lo.Status.NONFINITE
        calls[0] = 0
    result = lo.minimize(problem, x0, method, on_failure="return")
    assert not result.success
    first = lo.Objective(lambda x: np.nan, quartic.grad, shape=(5, 2))
    result = lo.minimize(first, x0, method, on_failure="return")
    assert result.status is lo.Status.NONFINITE and result.nit == 0


def test_a_step_that_is_far_too_long_says_so():
    problem = lo.problems.Procrustes.random(4, rng=0)
    method = trivialization(optimizer=GradientDescent(1e200))
    result = lo.minimize(problem, method=method, rng=0, on_failure="return")
    assert result.status is lo.Status.NONFINITE


def test_products_with_free_blocks(rng):
    quartic, target = Quartic(rng, (5, 3)), gaussian(rng, (3,))
    problem = lo.Objective(
        lambda v: quartic.fun(v["w"]) + float(np.sum((v["w"][0] - v["b"] - target) ** 2)),
        lambda v: {
            "w": quartic.grad(v["w"]) + np.eye(5)[:, :1] * (2 * (v["w"][0] - v["b"] - target)),
            "b": -2 * (v["w"][0] - v["b"] - target),
        },
        shape={"w": (5, 3), "b": (3,)},
        constraint={"w": lo.Stiefel(), "b": lo.Euclidean()},
    )
    best = lo.minimize(quartic.problem, rng=0).fun
    for phi, optimizer in (("exponential", LBFGS()), ("cayley", GradientDescent(momentum=0.5))):
        method = trivialization(phi, optimizer, dynamic=20)
        result = lo.minimize(problem, method=method, rng=0, tol=1e-7)
        assert result.success
        assert result.fun == pytest.approx(best, rel=1e-8)
        assert np.allclose(result.x["b"], result.x["w"][0] - target, atol=1e-5)


def test_a_separable_stack_is_a_loop():
    problem = lo.problems.Procrustes.random(4, stack=(3,), rng=0)
    x0 = lo.stiefel.random(4, stack=(3,), rng=0)
    method = trivialization("cayley", GradientDescent(0.03, momentum=0.5), dynamic=6)
    stop = lo.GradientNorm(rtol=1e-3) | lo.MaxIterations(400)
    together = lo.minimize(problem, x0, method, stop=stop)
    assert together.success
    for i in range(3):
        alone = lo.problems.Procrustes(problem.A[i], problem.B[i])
        run = lo.minimize(alone, x0[i], method, stop=stop)
        rows = together.trace["gradient_norm"][: run.nit + 1, i]
        assert np.allclose(rows, run.trace["gradient_norm"], rtol=1e-8)
        assert np.allclose(together.x[i], run.x, atol=1e-12)  # frozen where it ended
    result = lo.minimize(problem, x0, trivialization())
    assert np.allclose(result.fun, together.fun, rtol=1e-4)
    assert np.all(result.status == int(lo.Status.CONVERGED)) or not result.success


def test_in_other_array_libraries(arrays):
    rng = np.random.default_rng(0)
    for shape, dtype in (((5, 5), "float64"), ((7, 3), "complex128"), ((2, 6, 3), "float64")):
        quartic = Quartic(rng, shape, dtype)
        fun = (lambda q: lambda x: q.fun(arrays.host(x)))(quartic)
        problem = lo.Objective(fun, arrays.wrap(quartic.grad), shape=shape)
        x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=0, dtype=dtype)
        for phi in MAPS:
            for optimizer in (LBFGS(), GradientDescent(0.01, momentum=0.5), Adam(0.01)):
                method = trivialization(phi, optimizer, dynamic=4)
                stop = lo.MaxIterations(10)
                expected = lo.minimize(quartic.problem, x0, method, stop=stop)
                result = lo.minimize(problem, arrays.to(x0), method, stop=stop)
                assert np.allclose(arrays.host(result.x), expected.x, atol=1e-11)


def test_single_precision_stays(rng):
    problem = lo.problems.Procrustes.random(6, rng=0, dtype=np.float32)
    for optimizer in (LBFGS(), GradientDescent(momentum=0.8), Adam(0.01)):
        method = trivialization(optimizer=optimizer, dynamic=10)
        result = lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(60))
        assert result.x.dtype == np.float32
        assert result.distance < 1e-6
        assert result.fun < result.trace["fun"][0]


def test_compare_and_progress(capsys):
    problem = lo.problems.PCA.random(12, 3, rng=0)
    descent = trivialization("cayley", GradientDescent(momentum=0.8))
    methods = [trivialization(dynamic=10), descent, lo.landing()]
    comparison = lo.compare(problem, methods, rng=0, repeats=1, accuracy=1e-3)
    assert not comparison.errors
    assert all(row["solved"] for row in comparison.rows())
    names = list(comparison.results)
    assert names[0] == "trivialization(exponential, LBFGS, dynamic=10)"
    columns = comparison.results[names[0]].trace.columns
    assert columns == comparison.results[names[2]].trace.columns
    lo.minimize(problem, method=trivialization(), rng=0, progress=True)
    assert "trivialization" in capsys.readouterr().err


def test_recipes_are_values():
    one, two = trivialization(), trivialization("exponential", LBFGS(), dynamic=0)
    assert one == two == Trivialization()
    assert hash(one) == hash(two)
    assert trivialization("cayley", Adam(0.1)).name == "trivialization(cayley, Adam)"
    sgd = trivialization(optimizer=Adam(0.1), estimator=lo.estimators.MiniBatch(8), dynamic=5)
    assert sgd.name == "trivialization(exponential, Adam, MiniBatch, dynamic=5)"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: trivialization("expm"), ValueError, 'map must be "exponential" or "cayley"'),
        (lambda: trivialization(optimizer="adam"), TypeError, "optimizer must be LBFGS"),
        (lambda: trivialization(optimizer=Adam), TypeError, "call it, Adam"),
        (lambda: trivialization(dynamic=-1), ValueError, "dynamic must be the whole number"),
        (lambda: trivialization(dynamic=2.5), ValueError, "dynamic must be the whole number"),
        (lambda: trivialization(dynamic=True), ValueError, "dynamic must be the whole number"),
        (lambda: trivialization(estimator=3), TypeError, "estimator must be an estimator"),
        (
            lambda: trivialization(estimator=lo.estimators.MiniBatch(8)),
            ValueError,
            "optimizer=GradientDescent",
        ),
        (
            lambda: trivialization(optimizer=Adam(0.1), estimator=lo.estimators.Momentum(0.9)),
            ValueError,
            "momentum in the optimizer",
        ),
        (lambda: GradientDescent(0.0), ValueError, "step must be positive"),
        (lambda: GradientDescent("fast"), TypeError, "step must be a positive number"),
        (lambda: GradientDescent(lo.steps.Constant), TypeError, "Constant is a class"),
        (lambda: GradientDescent(lo.steps.BarzilaiBorwein()), ValueError, "landing field"),
        (lambda: GradientDescent(0.1, momentum=1.0), ValueError, "momentum must be a number"),
        (lambda: GradientDescent(0.1, nesterov=True), ValueError, "needs a momentum"),
        (lambda: GradientDescent(0.1, momentum=0.5, nesterov=1), TypeError, "nesterov must be"),
        (lambda: Adam(None), TypeError, "step must be a positive number"),
        (lambda: Adam(0.1, beta2=1.0), ValueError, "beta2 must be a number"),
        (lambda: Adam(0.1, epsilon=-1.0), ValueError, "epsilon must be a number"),
        (lambda: LBFGS(memory=0), ValueError, "memory must be a whole number"),
        (lambda: LBFGS(ftol=-1e-3), ValueError, "ftol must be a number"),
    ],
)
def test_errors_say_what_to_do(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_errors_of_a_run():
    quartic = Quartic(np.random.default_rng(0), (4, 2))
    blind = lo.Objective(grad=quartic.grad, shape=(4, 2))
    with pytest.raises(TypeError, match="reads f, and this problem has no fun"):
        lo.minimize(blind, method=trivialization(), rng=0)
    method = trivialization(optimizer=GradientDescent(0.01))
    assert lo.minimize(blind, method=method, rng=0, stop=lo.MaxIterations(5)).nit == 5
    method = trivialization(optimizer=Adam(0.1), estimator=lo.estimators.MiniBatch(8))
    with pytest.raises(TypeError, match="needs a finite sum"):
        lo.minimize(quartic.problem, method=method, rng=0)
