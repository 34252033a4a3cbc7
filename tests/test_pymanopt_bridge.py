"""Pymanopt's optimizers as methods, and its problems as problems."""

import itertools
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pymanopt
import pytest
from pymanopt import manifolds, optimizers
from pymanopt.optimizers.line_search import AdaptiveLineSearcher

import landingopt as lo
from landingopt.baselines.pymanopt_bridge import (
    PymanoptMethod,
    PymanoptProblem,
    _classes,
    problem_from_pymanopt,
)

SOLVERS = ("SteepestDescent", "ConjugateGradient", "TrustRegions")


class Counted:
    """f with derivatives, counted apart from the library; ``off`` holds what the observer asks."""

    def __init__(self, n: int = 8, p: int = 3, seed: int = 0, both: bool = False, **options: Any):
        rng = np.random.default_rng(seed)
        a = rng.standard_normal((n, n))
        self.a, self.b = a + a.T, rng.standard_normal((n, p))
        self.counts = {"fun": 0, "grad": 0, "hessp": 0}
        self.buffer = np.empty((n, p))
        parts: dict[str, Any] = {"fun": self.fun, "grad": self.grad, "hessp": self.hessp}
        if both:
            parts = {"value_and_gradient": self.both}
        self.problem = lo.Objective(shape=(n, p), **(parts | options))

    def f(self, x):
        return float(np.sum(x * (self.a @ x)) / 2 + np.sum(self.b * x))

    def g(self, x):
        return self.a @ x + self.b

    def fun(self, x):
        self.counts["fun"] += 1
        return self.f(x)

    def grad(self, x):
        self.counts["grad"] += 1
        self.buffer[...] = self.g(x)  # a shared buffer is allowed
        return self.buffer

    def hessp(self, x, v):
        self.counts["hessp"] += 1
        return self.a @ v

    def both(self, x):
        self.counts["fun"] += 1
        self.counts["grad"] += 1
        return self.f(x), self.g(x)

    def gradient_norm(self, x):
        g = self.g(x)
        m = x.T @ g
        return np.linalg.norm(g - x @ (m + m.T) / 2)

    def pymanopt(self, **options: Any) -> pymanopt.Problem:
        n, p = self.b.shape
        m = manifolds.Stiefel(n, p)
        wrap = pymanopt.function.numpy(m)
        return pymanopt.Problem(
            m,
            wrap(lambda x: self.f(x)),
            euclidean_gradient=wrap(lambda x: self.g(x)),
            euclidean_hessian=wrap(lambda x, v: self.a @ v),
            **options,
        )


def run(problem, solver, tol=1e-6, rng=0, **options):
    return lo.minimize(problem, method=lo.pymanopt(solver), tol=tol, rng=rng, **options)


# -- as a method ------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_solves_to_the_tolerance_that_is_ours(solver):
    counted = Counted()
    tol = 1e-6
    x0 = lo.stiefel.random(8, 3, rng=5)
    result = run(counted.problem, solver, tol, x0=x0)
    assert result.status is lo.Status.CONVERGED
    first = counted.gradient_norm(x0)
    norms = result.trace["gradient_norm"]
    assert norms[0] == pytest.approx(first, rel=1e-12)
    # The rule decides: met at the last row, and at none before.
    assert norms[-1] <= tol * first
    assert np.all(norms[:-1] > tol * norms[0])
    # The norm is that of the point returned, not of the one before.
    assert result.gradient_norm == pytest.approx(counted.gradient_norm(result.x), rel=1e-6)
    assert result.fun == pytest.approx(counted.f(result.x), rel=1e-12)
    assert result.distance == pytest.approx(lo.stiefel.distance(result.x), abs=1e-14)
    ours = lo.minimize(counted.problem, x0, tol=1e-8)
    assert result.feasible_fun == pytest.approx(ours.feasible_fun, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_counts_are_those_of_the_functions(solver):
    # Whatever is recorded is evaluated apart, and here nothing has to be: it is all known.
    counted = Counted()
    result = run(counted.problem, solver)
    assert counted.counts["fun"] - result.nfev in (0, 1)  # f at feasible_x
    assert result.njev == counted.counts["grad"] - counted_rejections(result, solver)
    assert result.nhev == counted.counts["hessp"]
    assert (result.nhev > 0) == (solver == "TrustRegions")
    assert np.all(np.diff(result.trace["nfev"]) >= 1)
    assert result.trace["nfev"][-1] == result.nfev
    assert result.trace["njev"][-1] == result.njev


def counted_rejections(result, solver):
    """Rejected steps of TrustRegions: there the observer evaluates the gradient for itself."""
    return int(np.sum(np.diff(result.trace["fun"]) == 0.0)) if solver == "TrustRegions" else 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_counts_are_pymanopts_own(solver):
    # The same run in pymanopt alone calls the functions equally often, save what follows its stop.
    counted = Counted()
    x0 = lo.stiefel.random(8, 3, rng=2)
    steps = 6
    result = lo.minimize(counted.problem, x0, lo.pymanopt(solver), stop=lo.MaxIterations(steps))

    alone = Counted()
    m = manifolds.Stiefel(8, 3)
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m,
        wrap(lambda x: alone.fun(x)),
        euclidean_gradient=wrap(lambda x: alone.grad(x)),
        euclidean_hessian=wrap(lambda x, v: alone.hessp(x, v)),
    )
    limit = steps + (solver == "ConjugateGradient")
    optimizer = getattr(optimizers, solver)(
        max_iterations=limit, verbosity=0, min_gradient_norm=0, min_step_size=0
    )
    theirs = optimizer.run(problem, initial_point=x0.copy())
    np.testing.assert_array_equal(result.x, theirs.point)
    assert result.nhev == alone.counts["hessp"]
    # SteepestDescent evaluates no gradient at its last point (our observer does, off the count),
    # and its cost once more; our run goes on to see that gradient.
    extra = 1 if solver == "SteepestDescent" else 0
    assert result.njev == alone.counts["grad"] + extra
    assert result.nfev == alone.counts["fun"]


@pytest.mark.parametrize("solver", ["SteepestDescent", "ConjugateGradient"])
def test_rows_are_the_accepted_iterates_of_pymanopts_own_log(solver):
    counted = Counted()
    x0 = lo.stiefel.random(8, 3, rng=3)
    seen: list[np.ndarray] = []
    result = lo.minimize(
        counted.problem,
        x0,
        lo.pymanopt(solver),
        stop=lo.MaxIterations(15),
        callback=lambda row: seen.append(row.x.copy()),
    )
    optimizer = getattr(optimizers, solver)(
        max_iterations=16, verbosity=0, log_verbosity=1, min_gradient_norm=0, min_step_size=0
    )
    log = optimizer.run(counted.pymanopt(), initial_point=x0.copy()).log["iterations"]
    assert len(seen) == len(log["point"]) == 16
    for mine, theirs in zip(seen, log["point"], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(result.trace["fun"], log["cost"], rtol=1e-14)
    np.testing.assert_allclose(result.trace["gradient_norm"], log["gradient_norm"], rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_rows_decrease(solver):
    counted = Counted(20, 6, seed=4)
    result = run(counted.problem, solver)
    fun = result.trace["fun"]
    assert np.all(np.diff(fun) <= 1e-12 * np.abs(fun[:-1]))
    assert result.trace["iteration"].tolist() == list(range(result.nit + 1))


def test_rejected_steps_of_trust_regions_keep_the_point():
    counted = Counted(20, 6, seed=4)
    xs: list[np.ndarray] = []
    result = lo.minimize(
        counted.problem,
        method=lo.pymanopt("TrustRegions", Delta_bar=1e3, Delta0=300.0),
        rng=1,
        callback=lambda row: xs.append(row.x.copy()),
    )
    same = [np.array_equal(a, b) for a, b in itertools.pairwise(xs)]
    assert any(same)
    for i, x in enumerate(xs):
        assert result.trace["fun"][i] == pytest.approx(counted.f(x), rel=1e-13)
        expected = counted.gradient_norm(x)
        assert result.trace["gradient_norm"][i] == pytest.approx(expected, rel=1e-6, abs=1e-10)


def test_trust_regions_rows_are_those_of_shorter_runs():
    # Pymanopt logs no points there: the k-th row must be where pymanopt stops after k iterations.
    counted = Counted(12, 4, seed=7)
    x0 = lo.stiefel.random(12, 4, rng=3)
    xs: list[np.ndarray] = []
    lo.minimize(
        counted.problem,
        x0,
        lo.pymanopt("TrustRegions"),
        stop=lo.MaxIterations(6),
        callback=lambda row: xs.append(row.x.copy()),
    )
    for k in range(1, 7):
        optimizer = optimizers.TrustRegions(max_iterations=k, verbosity=0, min_gradient_norm=0)
        theirs = optimizer.run(counted.pymanopt(), initial_point=x0.copy())
        np.testing.assert_array_equal(xs[k], theirs.point)


@pytest.mark.parametrize("solver", SOLVERS)
def test_limits_are_exact(solver):
    result = lo.minimize(
        Counted().problem, method=lo.pymanopt(solver), stop=lo.MaxIterations(7), rng=0
    )
    assert result.status is lo.Status.MAX_ITERATIONS
    assert (result.nit, len(result.trace)) == (7, 8)
    nothing = lo.minimize(
        Counted().problem, method=lo.pymanopt(solver), stop=lo.MaxIterations(0), rng=0
    )
    assert (nothing.nit, nothing.nfev, nothing.njev, len(nothing.trace)) == (0, 1, 1, 1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_records_keep_first_and_last_and_test_every_iterate(solver):
    dense = run(Counted().problem, solver)
    sparse = run(Counted().problem, solver, record=lo.Every(1000))
    assert sparse.trace["iteration"].tolist() == [0, dense.nit]
    np.testing.assert_array_equal(sparse.x, dense.x)
    assert sparse.nfev == dense.nfev


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_callback_stops(solver):
    result = run(Counted().problem, solver, callback=lambda row: row.iteration == 3)
    assert result.status is lo.Status.CALLBACK
    assert (result.nit, len(result.trace)) == (3, 4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_at_the_optimum_takes_no_step(solver):
    x = run(Counted().problem, "TrustRegions", 1e-13).x
    result = run(Counted().problem, solver, x0=x, stop=lo.GradientNorm(atol=1e-8), tol=None)
    assert (result.nit, result.status) == (0, lo.Status.CONVERGED)


@pytest.mark.parametrize("solver", SOLVERS)
def test_value_and_gradient_alone_counts_both(solver):
    counted = Counted(both=True, hessp=lambda x, v: Counted().a @ v)
    result = run(counted.problem, solver)
    assert result.success
    assert result.nfev == result.njev
    elsewhere = counted.counts["fun"] - counted_rejections(result, solver) - result.nfev
    assert elsewhere in (0, 1)


def test_the_step_is_the_length_of_the_retracted_vector():
    result = run(Counted().problem, "SteepestDescent")
    steps = result.trace["step"]
    assert np.isnan(steps[0])
    assert np.all(steps[1:] > 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_x0_is_left_alone_and_projected(solver):
    counted = Counted()
    x0 = 1.5 * lo.stiefel.random(8, 3, rng=0)
    x0.flags.writeable = False
    before = x0.copy()
    seen = []
    result = run(counted.problem, solver, x0=x0, callback=lambda row: seen.append(row.x.copy()))
    np.testing.assert_array_equal(x0, before)
    np.testing.assert_allclose(seen[0], x0 / 1.5, atol=1e-14)
    assert result.success
    assert not np.shares_memory(result.x, x0)
    with pytest.raises(ValueError, match="full rank"):
        run(counted.problem, solver, x0=np.zeros((8, 3)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_nonfinite_values_are_reported(solver):
    counted = Counted()
    calls = []

    def grad(x):
        calls.append(1)
        return counted.g(x) * (np.nan if len(calls) > 4 else 1.0)

    problem = lo.Objective(counted.f, grad, shape=(8, 3), hessp=lambda x, v: counted.a @ v)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = run(problem, solver, on_failure="return")
    assert result.status is lo.Status.NONFINITE


# -- when pymanopt stops by itself ------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_pymanopts_own_limit_is_external(solver):
    method = lo.pymanopt(solver, max_iterations=4)
    counted = Counted()
    result = lo.minimize(counted.problem, method=method, rng=0)
    assert result.status is lo.Status.EXTERNAL
    assert not result.success
    assert "max iterations reached" in result.message
    assert result.nit == (3 if solver == "ConjugateGradient" else 4)
    assert len(result.trace) == result.nit + 1
    assert result.trace["fun"][-1] == pytest.approx(counted.f(result.x))
    assert result.gradient_norm == pytest.approx(counted.gradient_norm(result.x))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_librarys_rule_comes_first(solver):
    # Where both end the run, ours is what is reported.
    method = lo.pymanopt(solver, max_iterations=4)
    steps = 3 if solver == "ConjugateGradient" else 4
    result = lo.minimize(Counted().problem, method=method, stop=lo.MaxIterations(steps), rng=0)
    assert result.status is lo.Status.MAX_ITERATIONS
    assert "It said" not in result.message
    assert len(result.trace) == steps + 1


@pytest.mark.parametrize("solver", ["SteepestDescent", "ConjugateGradient"])
def test_a_line_search_that_stalls_is_external(solver):
    # The cost says that every step is uphill.
    counted = Counted()

    def fixed(x):
        return 0.0 if np.array_equal(x, x0) else 1.0

    x0 = lo.stiefel.random(8, 3, rng=0)
    x0 = lo.stiefel.polar(x0, "newton-schulz")
    problem = lo.Objective(fixed, counted.g, shape=(8, 3))
    result = lo.minimize(problem, x0, lo.pymanopt(solver))
    assert result.status is lo.Status.EXTERNAL
    assert "min step_size" in result.message
    assert result.trace["step"][-1] == 0.0
    np.testing.assert_array_equal(result.x, x0)
    assert result.nit == 1


# -- what is refused, and how -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("ConjugateGradients", "ConjugateGradient"),
        ("conjugate_gradient", "ConjugateGradient"),
        ("trust-regions", "TrustRegions"),
        ("CG", "ConjugateGradient"),
        ("steepestdescent", "SteepestDescent"),
    ],
)
def test_unknown_names(name, close):
    with pytest.raises(ValueError, match=f'did you mean "{close}"') as error:
        lo.pymanopt(name)
    assert all(solver in str(error.value) for solver in SOLVERS)


def test_names_without_a_neighbour_and_methods_without_x0():
    with pytest.raises(ValueError, match="supported ones are"):
        lo.pymanopt("xyzzy")
    with pytest.raises(ValueError, match="supported ones are"):
        lo.pymanopt(7)
    for name in ("NelderMead", "ParticleSwarm"):
        with pytest.raises(ValueError, match="logarithm"):
            lo.pymanopt(name)


def test_options():
    with pytest.raises(TypeError, match=r"did you mean beta_rule\?.*orth_value"):
        lo.pymanopt("ConjugateGradient", betarule="PolakRibiere")
    with pytest.raises(TypeError, match=r"result\.trace"):
        lo.pymanopt("ConjugateGradient", verbosity=2)
    with pytest.raises(TypeError, match="ignores it"):
        lo.pymanopt("ConjugateGradient", max_cost_evaluations=10)
    with pytest.raises(TypeError, match="no option 'initial_point'"):
        lo.pymanopt("TrustRegions", initial_point=None)
    with pytest.raises(ValueError, match="beta rule"):
        lo.pymanopt("ConjugateGradient", beta_rule="Unknown")
    with pytest.raises(ValueError, match="retraction must be"):
        lo.pymanopt("ConjugateGradient", retraction="cayley")
    searcher = AdaptiveLineSearcher(contraction_factor=0.3)
    for solver, options in {
        "SteepestDescent": {"line_searcher": searcher, "retraction": "polar"},
        "ConjugateGradient": {"beta_rule": "PolakRibiere", "orth_value": 0.3},
        "TrustRegions": {"maxinner": 5, "Delta0": 0.1, "kappa": 0.2, "use_rand": True},
    }.items():
        plain = run(Counted().problem, solver)
        method = lo.pymanopt(solver, **options)
        result = lo.minimize(Counted().problem, method=method, rng=0)
        assert result.fun == pytest.approx(plain.fun, rel=1e-9)
        assert not np.array_equal(result.trace["fun"][:4], plain.trace["fun"][:4])


def test_methods_are_values():
    a, b = (lo.pymanopt("TrustRegions", Delta0=0.1) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    assert a != lo.pymanopt("TrustRegions")
    assert isinstance(a, PymanoptMethod)
    assert a.name == "pymanopt TrustRegions"
    assert repr(a) == "pymanopt('TrustRegions', Delta0=0.1)"
    with pytest.raises(AttributeError):
        a.solver = "ConjugateGradient"


def test_problems_without_what_is_needed():
    counted = Counted()
    problem = lo.Objective(counted.f, counted.g, shape=(8, 3))
    with pytest.raises(TypeError, match=r"no hessp.*ConjugateGradient"):
        run(problem, "TrustRegions")
    assert run(problem, "ConjugateGradient").success
    problem = lo.Objective(grad=counted.g, shape=(8, 3))
    with pytest.raises(TypeError, match="reads f"):
        run(problem, "ConjugateGradient")


def test_a_hessp_in_the_gradients_memory():
    counted = Counted()
    buffer = np.empty((8, 3))
    problem = lo.Objective(
        counted.f,
        lambda x: np.add(counted.a @ x, counted.b, out=buffer),
        hessp=lambda x, v: np.matmul(counted.a, v, out=buffer),
        shape=(8, 3),
    )
    with pytest.raises(ValueError, match="array of its own"):
        run(problem, "TrustRegions")


def test_other_array_libraries():
    torch = pytest.importorskip("torch")
    problem = lo.Objective(lambda x: (x**2).sum(), lambda x: 2 * x, shape=(4, 2))
    with pytest.raises(TypeError, match="NumPy arrays only"):
        run(problem, "ConjugateGradient", x0=torch.eye(4, dtype=torch.float64)[:, :2])


def test_complex_tall_is_refused():
    problem = lo.Objective(
        lambda x: float(np.sum(np.abs(x) ** 2)),
        lambda x: 2 * x,
        shape=(4, 2),
        like=np.empty(0, "D"),
    )
    with pytest.raises(TypeError, match=r"UnitaryGroup.*lo\.landing"):
        run(problem, "ConjugateGradient")


# -- the other shapes of x --------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_wide(solver):
    tall = Counted()
    wide = lo.Objective(
        lambda x: tall.f(x.T),
        lambda x: tall.g(x.T).T,
        hessp=lambda x, v: (tall.a @ v.T).T,
        shape=(3, 8),
    )
    x0 = lo.stiefel.random(8, 3, rng=0)
    one, other = run(tall.problem, solver, x0=x0), run(wide, solver, x0=x0.T)
    assert other.x.shape == (3, 8)
    assert other.success
    assert other.fun == pytest.approx(one.fun, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_single_precision_stays(solver):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((8, 8)).astype(np.float32)
    a = a + a.T
    dtypes = set()

    def watched(f):
        def call(*x):
            dtypes.update(str(v.dtype) for v in x)
            return f(*x)

        return call

    problem = lo.Objective(
        watched(lambda x: float(np.sum(x * (a @ x)))),
        watched(lambda x: 2 * a @ x),
        hessp=watched(lambda x, v: 2 * a @ v),
        shape=(8, 3),
        like=np.empty(0, np.float32),
    )
    result = run(problem, solver, tol=1e-3)
    assert result.success
    assert result.x.dtype == np.float32
    assert dtypes == {"float32"}


def unitary_procrustes(p=6, seed=0, k=()):
    rng = np.random.default_rng(seed)

    def draw():
        return rng.standard_normal((*k, p, p)) + 1j * rng.standard_normal((*k, p, p))

    a, b = draw(), draw()
    u, _, vh = np.linalg.svd(b @ np.conj(np.swapaxes(a, -1, -2)))
    optimum = u @ vh

    def fun(x):
        return float(np.sum(np.abs(x @ a - b) ** 2))

    def grad(x):
        return 2 * (x @ a - b) @ np.conj(np.swapaxes(a, -1, -2))

    def hessp(x, v):
        return 2 * (v @ a) @ np.conj(np.swapaxes(a, -1, -2))

    return fun, grad, hessp, fun(optimum)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("k", [(), (3,)])
def test_unitary(solver, k):
    fun, grad, hessp, best = unitary_procrustes(4, k=k)
    problem = lo.Objective(fun, grad, hessp=hessp, shape=(*k, 4, 4), like=np.empty(0, complex))
    result = run(problem, solver, tol=1e-5)
    assert result.success
    assert result.fun == pytest.approx(best, rel=1e-8)
    g = grad(result.x)
    m = np.conj(np.swapaxes(result.x, -1, -2)) @ g
    norm = np.linalg.norm(m - np.conj(np.swapaxes(m, -1, -2))) / 2
    assert result.gradient_norm == pytest.approx(norm, rel=1e-6)


def test_the_repaired_unitary_gradient_is_the_slope():
    fun, grad, hessp, _ = unitary_procrustes()
    m = _classes().unitary(6)
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m,
        wrap(lambda x: fun(x)),
        euclidean_gradient=wrap(lambda x: grad(x)),
        euclidean_hessian=wrap(lambda x, v: hessp(x, v)),
    )
    x = lo.stiefel.random(6, rng=0, dtype=complex)
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 6)) + 1j * rng.standard_normal((6, 6))
    w = w - w.conj().T
    t = 1e-5
    slope = (fun(m.exp(x, t * w)) - fun(m.exp(x, -t * w))) / (2 * t)
    riemannian = problem.riemannian_gradient(x)
    assert m.inner_product(x, riemannian, w) == pytest.approx(slope, rel=1e-7)
    curvature = (fun(m.exp(x, 1e-4 * w)) - 2 * fun(x) + fun(m.exp(x, -1e-4 * w))) / 1e-8
    product = problem.riemannian_hessian(x, w)
    assert m.inner_product(x, product, w) == pytest.approx(curvature, rel=1e-4)
    np.testing.assert_allclose(product, -product.conj().T, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [tuple, dict])
def test_products_with_free_blocks(solver, kind):
    rng = np.random.default_rng(0)
    data, target = rng.standard_normal((30, 5)), rng.standard_normal((30, 3))
    buffer = np.empty(3)

    def fun(x):
        return 0.5 * float(np.sum((data @ x[keys[0]] + x[keys[1]] - target) ** 2))

    def grad(x):
        r = data @ x[keys[0]] + x[keys[1]] - target
        buffer[...] = r.sum(axis=0)  # pymanopt would keep this memory
        return pack(data.T @ r, buffer)

    def hessp(x, v):
        r = data @ v[keys[0]] + v[keys[1]]
        return pack(data.T @ r, r.sum(axis=0))

    keys = (0, 1) if kind is tuple else ("W", "b")

    def pack(a, b):
        return (a, b) if kind is tuple else {"W": a, "b": b}

    problem = lo.Objective(
        fun,
        grad,
        hessp=hessp,
        shape=pack((5, 3), (3,)),
        constraint=pack(lo.Stiefel(), lo.Euclidean()),
    )
    x0 = pack(lo.stiefel.random(5, 3, rng=0), np.zeros(3))
    result = run(problem, solver, x0=x0)
    assert result.success
    assert type(result.x) is kind
    assert result.fun == pytest.approx(lo.minimize(problem, x0, tol=1e-8).fun, rel=1e-8)
    assert np.all(np.diff(result.trace["fun"]) <= 1e-12 * result.trace["fun"][:-1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch", [(3,), (1,), (2, 2)])
@pytest.mark.parametrize("separable", [True, False])
def test_stacks(solver, batch, separable):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, *batch, 5, 5))

    def each(x):
        return np.sum((x @ a - b) ** 2, axis=(-2, -1))

    problem = lo.Objective(
        each if separable else lambda x: float(np.sum(each(x))),
        lambda x: 2 * (x @ a - b) @ a.mT,
        hessp=lambda x, v: 2 * (v @ a) @ a.mT,
        shape=(*batch, 5, 5),
    )
    x0 = lo.stiefel.random(5, stack=batch, rng=1)
    result = run(problem, solver, tol=1e-5, x0=x0)
    assert result.success
    assert result.x.shape == (*batch, 5, 5)
    ours = lo.minimize(problem, x0, tol=1e-8)
    assert np.sum(result.fun) == pytest.approx(np.sum(ours.fun), rel=1e-8)
    if separable:
        # Reported one by one, and every matrix meets its own tolerance at the x returned.
        assert np.shape(result.fun) == np.shape(result.status) == batch
        norms = result.trace["gradient_norm"]
        assert norms.shape == (len(result.trace), *batch)
        assert np.all(result.gradient_norm <= 1e-5 * norms[0])
        np.testing.assert_allclose(result.fun, each(result.x), rtol=1e-12)
    short = lo.minimize(problem, x0, lo.pymanopt(solver), stop=lo.MaxIterations(2))
    assert short.nit == 2
    assert not short.success


def test_a_separable_stack_that_pymanopt_gives_up():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 5, 5))
    problem = lo.Objective(
        lambda x: np.sum((x @ a - b) ** 2, axis=(-2, -1)),
        lambda x: 2 * (x @ a - b) @ a.mT,
        shape=(3, 5, 5),
    )
    result = lo.minimize(problem, method=lo.pymanopt("SteepestDescent", max_iterations=3), rng=0)
    assert np.all(result.status == lo.Status.EXTERNAL)
    assert (result.nit, len(result.trace)) == (3, 4)


# -- pymanopt's problems ----------------------------------------------------------------------


def brockett(m, complex_=False, backend="numpy"):
    """-tr(X^H C X N) on a manifold of (n, p) or (k, n, p) arrays, and its gradient and Hessian."""
    shape = m.zero_vector(None).shape
    n, p = shape[-2:]
    rng = np.random.default_rng(3)
    c = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0)
    c = c + c.conj().T
    # Grassmann needs equal weights.
    weights = np.ones(p) if "Grassmann" in type(m).__name__ else np.arange(1.0, p + 1)

    def fun(x):
        return -float(np.sum((x.conj() * (c @ x * weights)).real))

    def grad(x):
        return -2 * (c @ x) * weights

    values = np.sort(np.linalg.eigvalsh(c))[::-1][:p]
    best = -float(np.sum(values * np.sort(weights)[::-1])) * int(np.prod(shape[:-2]))
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m,
        wrap(lambda x: fun(x)),
        euclidean_gradient=wrap(lambda x: grad(x)),
        euclidean_hessian=wrap(lambda x, v: grad(v)),
    )
    return problem, best


MANIFOLDS = {
    "Stiefel": manifolds.Stiefel(7, 3),
    "Stiefel square": manifolds.Stiefel(4, 4),
    "Stiefel k": manifolds.Stiefel(6, 2, k=3),
    "Grassmann": manifolds.Grassmann(7, 3),
    "Grassmann k": manifolds.Grassmann(6, 2, k=2),
    "SO": manifolds.SpecialOrthogonalGroup(4),
    "SO k": manifolds.SpecialOrthogonalGroup(4, k=3),
    "Unitary": manifolds.UnitaryGroup(4),
    "Unitary k": manifolds.UnitaryGroup(3, k=2),
    "ComplexGrassmann": manifolds.ComplexGrassmann(6, 2),
    "Sphere matrix": manifolds.Sphere(5, 1),
}


@pytest.mark.parametrize("name", MANIFOLDS)
@pytest.mark.parametrize("solver", [None, *SOLVERS])
def test_a_pymanopt_problem_is_a_problem(name, solver):
    m = MANIFOLDS[name]
    problem, best = brockett(m, complex_="Unitary" in name or "Complex" in name)
    method = None if solver is None else lo.pymanopt(solver)
    result = lo.minimize(problem, method=method, tol=1e-6, rng=0)
    assert result.success
    assert result.feasible_fun == pytest.approx(best, rel=1e-8)
    assert result.distance < 1e-8
    if name.startswith("SO"):
        assert np.all(np.asarray(result.component) == 1)
        assert np.all(np.linalg.det(result.x) > 0)


@pytest.mark.parametrize("rng", range(4))
def test_rotations_start_as_rotations(rng):
    problem, _ = brockett(manifolds.SpecialOrthogonalGroup(4))
    det = []
    result = lo.minimize(problem, rng=rng, callback=lambda row: det.append(np.linalg.det(row.x)))
    assert det[0] > 0
    assert result.component == 1
    reflection = np.diag([1.0, 1.0, 1.0, -1.0])
    assert lo.minimize(problem, reflection).component == 1
    for other in (-1, "both"):
        with pytest.raises(ValueError, match=r"rotations, det x = \+1; drop component"):
            lo.minimize(problem, component=other, rng=rng)
    assert "both" not in result.message


def test_rotations_in_a_product_start_as_rotations():
    m = manifolds.Product([manifolds.SpecialOrthogonalGroup(3), manifolds.Euclidean(3)])
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3, 20))
    rotation = lo.stiefel.random(3, rng=1)
    rotation = rotation * np.sign(np.linalg.det(rotation))
    target = rotation @ points + np.array([[1.0], [2.0], [3.0]])
    wrap = pymanopt.function.numpy(m)

    def residual(q, t):
        return q @ points + t[:, None] - target

    problem = pymanopt.Problem(
        m,
        wrap(lambda q, t: 0.5 * np.sum(residual(q, t) ** 2)),
        euclidean_gradient=wrap(
            lambda q, t: (residual(q, t) @ points.T, residual(q, t).sum(axis=1))
        ),
        euclidean_hessian=wrap(
            lambda q, t, dq, dt: (
                (dq @ points + dt[:, None]) @ points.T,
                (dq @ points + dt[:, None]).sum(axis=1),
            )
        ),
    )
    for seed in range(3):
        for method in (None, *map(lo.pymanopt, SOLVERS)):
            result = lo.minimize(problem, method=method, tol=1e-8, rng=seed)
            assert result.success
            assert isinstance(result.x, tuple)
            assert np.linalg.det(result.x[0]) > 0
            if result.fun < 1e-6:
                np.testing.assert_allclose(result.x[0], rotation, atol=1e-6)
                np.testing.assert_allclose(result.x[1], [1, 2, 3], atol=1e-5)


def test_the_hessian_of_groups_is_that_of_matrices():
    # Pymanopt stores X^H V for a tangent V; our hessp takes V.
    for k in (1, 2):
        m = manifolds.SpecialOrthogonalGroup(4, k=k)
        problem, _ = brockett(m)
        adapted = problem_from_pymanopt(problem)
        x = m.random_point()
        v = np.random.default_rng(0).standard_normal(x.shape)
        expected = (adapted.grad(x + 1e-6 * v) - adapted.grad(x - 1e-6 * v)) / 2e-6
        np.testing.assert_allclose(adapted.hessp(x, v), expected, rtol=1e-6, atol=1e-6)
        product = manifolds.Product([m])
        wrap = pymanopt.function.numpy(product)
        inside = pymanopt.Problem(
            product,
            wrap(_InProduct(adapted).fun),
            euclidean_gradient=wrap(_InProduct(adapted).grad),
            euclidean_hessian=wrap(_InProduct(adapted).hessp),
        )
        (h,) = problem_from_pymanopt(inside).hessp((x,), (v,))
        np.testing.assert_allclose(h, adapted.hessp(x, v))
        best = lo.minimize(problem, rng=0, tol=1e-8).feasible_fun
        result = lo.minimize(inside, method=lo.pymanopt("TrustRegions"), rng=0)
        assert result.success
        assert result.fun == pytest.approx(best, rel=1e-8)


class _InProduct:
    """A problem's functions, in the lists that a product of one manifold wants."""

    def __init__(self, problem):
        self.fun = lambda x: problem.fun(x)
        self.grad = lambda x: [problem.grad(x)]
        self.hessp = lambda x, v: [problem.hessp(x, v)]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # 0/0 at an exact optimum
def test_sphere_and_euclidean():
    for shape in ((6,), (3, 2)):
        m = manifolds.Sphere(*shape)
        c = np.diag(np.arange(1.0, 7.0))
        wrap = pymanopt.function.numpy(m)
        problem = pymanopt.Problem(
            m,
            wrap(_Quadratic(c).fun),
            euclidean_gradient=wrap(_Quadratic(c).grad),
            euclidean_hessian=wrap(_Quadratic(c).hess),
        )
        for method in (None, *map(lo.pymanopt, SOLVERS)):
            result = lo.minimize(problem, method=method, tol=1e-7, rng=0)
            assert result.x.shape == (6, 1)
            assert result.fun == pytest.approx(1.0, rel=1e-8)
    m = manifolds.Euclidean(4)
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m, wrap(lambda x: np.sum((x - 1) ** 2)), euclidean_gradient=wrap(lambda x: 2 * (x - 1))
    )
    result = lo.minimize(problem, method=lo.pymanopt("ConjugateGradient"), rng=0)
    np.testing.assert_allclose(result.x, np.ones(4), atol=1e-6)


class _Quadratic:
    def __init__(self, c):
        self.fun = lambda x: x.ravel() @ c @ x.ravel()
        self.grad = lambda x: 2 * (c @ x.ravel()).reshape(x.shape)
        self.hess = lambda x, v: 2 * (c @ v.ravel()).reshape(x.shape)


def backend_problem(backend, m, complex_=False, product=False):
    """A cost without derivatives, of one of the autodiff libraries."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 4)) + (1j * rng.standard_normal((2, 4, 4)) if complex_ else 0)
    wrap = getattr(pymanopt.function, backend)(m)
    if backend == "autograd":
        import autograd.numpy as xp
    elif backend == "jax":
        import jax.numpy as xp
    else:
        import torch as xp

        a, b = xp.from_numpy(a), xp.from_numpy(b)

    if product:

        def cost(q, t):
            return xp.sum(xp.abs(q @ a + t - b) ** 2) + 0.5 * xp.sum(xp.abs(t) ** 2)
    else:

        def cost(q):
            return xp.sum(xp.abs(q @ a - b) ** 2)

    return pymanopt.Problem(m, wrap(cost)), np.asarray(a), np.asarray(b)


BACKENDS = {"autograd": "autograd", "jax": "jax", "pytorch": "torch"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["real", "complex", "product"])
def test_autodiff_backends(backend, kind):
    pytest.importorskip(BACKENDS[backend])
    m: Any = manifolds.Stiefel(4, 4)
    if kind == "complex":
        m = manifolds.UnitaryGroup(4)
    if kind == "product":
        m = manifolds.Product([m, manifolds.Euclidean(4)])
    problem, a, b = backend_problem(backend, m, kind == "complex", kind == "product")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PyTorch's, about read-only memory
        results = [
            lo.minimize(problem, method=method, tol=1e-6, rng=0)
            for method in (None, *map(lo.pymanopt, SOLVERS[1:]))
        ]
    assert all(result.success for result in results)
    for result in results:
        assert result.fun == pytest.approx(results[0].fun, rel=1e-8)
    adapted = problem_from_pymanopt(problem)
    assert adapted.hessp is not None
    x = results[0].x
    if kind != "product":
        gradient = 2 * (x @ a - b) @ a.conj().T
        np.testing.assert_allclose(adapted.grad(x), gradient, atol=1e-9)
        v = np.random.default_rng(1).standard_normal((4, 4)).astype(x.dtype)
        np.testing.assert_allclose(adapted.hessp(x, v), 2 * (v @ a) @ a.conj().T, atol=1e-9)


def test_same_optimum_from_both_sides():
    counted = Counted()
    direct = run(counted.problem, "TrustRegions", 1e-8)
    through = lo.minimize(counted.pymanopt(), method=lo.pymanopt("TrustRegions"), tol=1e-8, rng=0)
    np.testing.assert_array_equal(direct.x, through.x)
    assert (direct.nfev, direct.njev, direct.nhev) == (through.nfev, through.njev, through.nhev)
    landing = lo.minimize(counted.pymanopt(), tol=1e-8, rng=0)
    assert landing.feasible_fun == pytest.approx(direct.fun, rel=1e-12)


def test_a_problem_goes_back_to_its_own_manifold_and_preconditioner():
    calls = []

    def preconditioner(x, v):
        calls.append(1)
        return 0.5 * v

    problem = Counted().pymanopt(preconditioner=preconditioner)
    assert lo.minimize(problem, method=lo.pymanopt("ConjugateGradient"), rng=0).success
    assert calls
    # Grassmann has fewer dimensions than Stiefel: pymanopt's limit on inner iterations shows which.
    problem, best = brockett(manifolds.Grassmann(7, 3))
    result = lo.minimize(problem, method=lo.pymanopt("TrustRegions"), rng=0)
    assert result.fun == pytest.approx(best, rel=1e-9)


def test_user_manifolds_are_left_alone():
    m = manifolds.UnitaryGroup(4)
    problem, _ = brockett(m, complex_=True)
    lo.minimize(problem, method=lo.pymanopt("ConjugateGradient"), rng=0)
    assert type(m) is manifolds.UnitaryGroup
    assert problem.manifold is m


def test_a_riemannian_gradient_only():
    m = manifolds.Stiefel(5, 2)
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m,
        wrap(lambda x: np.sum(x**4)),
        riemannian_gradient=wrap(lambda x: m.projection(x, 4 * x**3)),
    )
    with pytest.raises(TypeError, match=r"only a Riemannian gradient.*euclidean_gradient="):
        lo.minimize(problem)
    with pytest.raises(TypeError, match="no gradient"):
        lo.minimize(pymanopt.Problem(m, wrap(lambda x: np.sum(x**4))))


def test_a_riemannian_gradient_beside_autodiff():
    autograd = pytest.importorskip("autograd.numpy")
    m = manifolds.Stiefel(5, 2)
    problem = pymanopt.Problem(
        m,
        pymanopt.function.autograd(m)(lambda x: autograd.sum(x**4)),
        riemannian_gradient=pymanopt.function.numpy(m)(lambda x: m.projection(x, 4 * x**3)),
    )
    assert lo.minimize(problem, rng=0).success


def test_without_a_hessian():
    m = manifolds.Stiefel(5, 2)
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m, wrap(lambda x: np.sum(x**4)), euclidean_gradient=wrap(lambda x: 4 * x**3)
    )
    assert problem_from_pymanopt(problem).hessp is None
    with pytest.raises(TypeError, match="no hessp"):
        run(problem, "TrustRegions")


def test_other_manifolds_are_named():
    for m in (manifolds.SymmetricPositiveDefinite(3), manifolds.Oblique(3, 2)):
        wrap = pymanopt.function.numpy(m)
        problem = pymanopt.Problem(m, wrap(lambda x: 0.0), euclidean_gradient=wrap(lambda x: x))
        with pytest.raises(TypeError, match=rf"{type(m).__name__}.*Grassmann.*Stiefel"):
            lo.minimize(problem)
    m = manifolds.Product([manifolds.UnitaryGroup(3), manifolds.Euclidean(3)])
    wrap = pymanopt.function.numpy(m)
    problem = pymanopt.Problem(
        m, wrap(lambda q, t: 0.0), euclidean_gradient=wrap(lambda q, t: [q, t])
    )
    with pytest.raises(TypeError, match="ComplexEuclidean"):
        lo.minimize(problem)
    with pytest.raises(TypeError, match=r"pymanopt\.Problem is needed"):
        problem_from_pymanopt(manifolds.Stiefel(3, 2))


def test_adapter():
    adapted = problem_from_pymanopt(Counted().pymanopt())
    assert isinstance(adapted, PymanoptProblem)
    assert adapted.shape == (8, 3)
    assert adapted.constraint == lo.Stiefel()
    assert adapted.component is None
    assert adapted.value_and_gradient is None
    assert adapted.like.dtype == np.float64
    assert repr(adapted) == "PymanoptProblem(Stiefel manifold St(8,3))"
    with pytest.raises(TypeError, match="float32"):
        lo.minimize(adapted, lo.stiefel.random(8, 3, dtype=np.float32))


def test_importing_the_library_does_not_import_pymanopt():
    code = (
        "import sys, landingopt, landingopt.baselines.pymanopt_bridge; "
        "sys.exit('pymanopt' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_printed(capsys):
    for solver in SOLVERS:
        run(Counted().problem, solver)
    assert capsys.readouterr().out == ""
