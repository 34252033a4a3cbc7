"""The methods without a step size solve everything, with no argument: a battery of problems.

Whether a problem is solved is judged here, in NumPy, from ``feasible_x`` alone: naive formulas for f
and its gradient, polar factors by SVD, closed-form optima by eigenvalues. Nothing of the library's
own measures is believed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import landingopt as lo

TOLERANCE = 1e-10


@dataclass
class Case:
    """A problem as handed to the library, and f, its gradient and its least value by naive formulas."""

    problem: Any
    fun: Callable[[np.ndarray], float]
    grad: Callable[[np.ndarray], np.ndarray]
    least: Callable[[np.ndarray], float | None] = lambda x: None


def polar(x):
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return u @ vh


def riemannian(x, gradient):
    """G - X sym(X^T G)."""
    cross = x.T @ gradient
    return gradient - x @ (cross + cross.T) / 2


def procrustes(p):
    def build(seed, scale):
        problem = lo.problems.Procrustes.random(p, rng=seed, weight=scale)
        A, B = problem.A, problem.B

        def least(x):
            """||A||^2 + ||B||^2 - 2 max tr(X^T B A^T) over the component of x."""
            M = B @ A.T
            sigma = np.linalg.svd(M, compute_uv=False)
            if np.linalg.slogdet(M)[0] != np.linalg.slogdet(x)[0]:
                sigma[-1] = -sigma[-1]
            return scale * (np.sum(A**2) + np.sum(B**2) - 2 * np.sum(sigma))

        return Case(
            problem,
            lambda x: scale * np.sum((x @ A - B) ** 2),
            lambda x: 2 * scale * (x @ A - B) @ A.T,
            least,
        )

    return build


def unbalanced(n, p):
    def build(seed, scale):
        problem = lo.problems.UnbalancedProcrustes.random(n, p, rng=seed, weight=scale)
        A, B = problem.A, problem.B
        return Case(
            problem,
            lambda x: scale * np.sum((A @ x - B) ** 2),
            lambda x: 2 * scale * A.T @ (A @ x - B),
        )

    return build


def pca(n, p):
    def build(seed, scale):
        K = np.random.default_rng(seed).standard_normal((n, n))
        K = scale * (K @ K.T) / n
        return Case(
            lo.problems.PCA.from_covariance(K, p),
            lambda x: -np.trace(x.T @ K @ x) / 2,
            lambda x: -K @ x,
            lambda x: -np.sum(np.linalg.eigvalsh(K)[-p:]) / 2,
        )

    return build


def brockett(n, p):
    def build(seed, scale):
        K = np.random.default_rng(seed).standard_normal((n, n))
        K = scale * (K + K.T) / 2
        weights = np.arange(p, 0, -1.0)
        problem = lo.problems.Brockett(K, weights)
        # min tr(X^T K X W): the smallest eigenvalues with the largest weights; the sign is the class's.
        probe = np.linalg.qr(np.random.default_rng(0).standard_normal((n, p)))[0]
        factor = problem.fun(probe) / np.trace(probe.T @ K @ probe @ np.diag(weights))
        values = np.sort(np.linalg.eigvalsh(factor * K))[:p]
        return Case(
            problem,
            lambda x: factor * np.trace(x.T @ K @ x @ np.diag(weights)),
            lambda x: 2 * factor * K @ x @ np.diag(weights),
            lambda x: float(np.sum(values * weights)),
        )

    return build


def quartic(n, p):
    def build(seed, scale):
        A = np.random.default_rng(seed).standard_normal((n, n))

        def fun(x):
            return scale * float(np.sum((A @ x) ** 4))

        def grad(x):
            return scale * 4 * A.T @ (A @ x) ** 3

        return Case(lo.Objective(fun, grad, shape=(n, p)), fun, grad)

    return build


def log_cosh(samples, p):
    """ICA's contrast, up to a constant: mean log cosh(2 y) of 2y = Y x."""

    def build(seed, scale):
        Y = np.random.default_rng(seed).laplace(size=(samples, p))

        def fun(x):
            u = Y @ x
            return scale * float(np.mean(np.logaddexp(u, -u)))

        def grad(x):
            u = Y @ x
            return scale * Y.T @ np.tanh(u) / u.size

        return Case(lo.Objective(fun, grad, shape=(p, p)), fun, grad)

    return build


SMALL = {
    "procrustes-5": procrustes(5),
    "procrustes-10": procrustes(10),
    "procrustes-40": procrustes(40),
    "unbalanced-60x20": unbalanced(60, 20),
    "pca-500x5": pca(500, 5),
    "brockett-100x10": brockett(100, 10),
    "quartic-20x4": quartic(20, 4),
    "log-cosh-20": log_cosh(2000, 20),
}
LARGE = {
    "procrustes-100": procrustes(100),
    "procrustes-200": procrustes(200),
    "unbalanced-200x50": unbalanced(200, 50),
    "pca-500x50": pca(500, 50),
}
SCALES = [1e-6, 1.0, 1e6]
STARTS = ["on", "off"]
SEEDS = [0, 1, 2, 3, 4]


def start(where, shape, seed):
    generator = np.random.default_rng(seed + 100)
    x = generator.standard_normal(shape)
    return np.linalg.qr(x)[0] if where == "on" else 30 * x


def assert_solved(case, x0, result):
    x, begin = result.feasible_x, polar(x0)
    p = x.shape[-1]
    assert result.success, result.message
    assert result.status is lo.Status.CONVERGED, result.message
    assert np.linalg.norm(x.T @ x - np.eye(p)) <= 1e-14 * p
    norm = np.linalg.norm(riemannian(x, case.grad(x)))
    reference = np.linalg.norm(riemannian(begin, case.grad(begin)))
    assert norm <= 1.001 * TOLERANCE * reference, "not stationary"
    value = case.fun(x)
    assert result.feasible_fun == pytest.approx(value, rel=1e-12)
    least = case.least(x)
    if least is not None:
        assert abs(value - least) <= TOLERANCE * abs(least), "not the least value"


METHODS = {
    "landing": lo.landing(),
    "lbfgs": lo.landing_lbfgs(),
    "cg": lo.landing_cg(),
    "newton": lo.landing_newton(),
}


def run(build, scale, where, seed, method):
    case = build(seed, scale)
    x0 = start(where, case.problem.shape, seed)
    kept = x0.copy()
    record = None if method == "landing" else lo.Every(10**6)
    result = lo.minimize(case.problem, x0, METHODS[method], tol=TOLERANCE, record=record)
    assert_solved(case, x0, result)
    assert np.array_equal(x0, kept)


@pytest.mark.parametrize("where", STARTS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("method", METHODS)
def test_it_is_solved_with_no_argument(method, name, scale, where):
    run(SMALL[name], scale, where, 0, method)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("where", STARTS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
@pytest.mark.parametrize("method", METHODS)
def test_the_complete_battery(method, name, scale, where, seed):
    run((SMALL | LARGE)[name], scale, where, seed, method)


def test_the_judge_rejects_an_unsolved_run():
    """Negative control: a run stopped early, and a wrong optimum, are both refused."""
    case = procrustes(10)(0, 1.0)
    x0 = start("on", (10, 10), 0)
    early = lo.minimize(case.problem, x0, tol=1e-8)
    early.status = lo.Status.CONVERGED
    with pytest.raises(AssertionError, match="not stationary"):
        assert_solved(case, x0, early)
    solved = lo.minimize(case.problem, x0, tol=TOLERANCE)
    case.least = lambda x: case.fun(x) * (1 - 1e-8)
    with pytest.raises(AssertionError, match="not the least value"):
        assert_solved(case, x0, solved)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("where", STARTS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_hard_quartic(scale, where, seed):
    """3000 to 11000 steps: solved as well, but beyond the default limit of 10 000 now and then."""
    case = quartic(50, 7)(seed, scale)
    x0 = start(where, case.problem.shape, seed)
    rule = lo.GradientNorm(rtol=TOLERANCE) & lo.Distance(1e-8) | lo.MaxIterations(40_000)
    assert_solved(case, x0, lo.minimize(case.problem, x0, stop=rule, record=lo.Every(50)))
