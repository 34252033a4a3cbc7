"""``lo.riemannian``: the estimators and steps of the landing, with a retraction for a move."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import reference as ref

import landingopt as lo

RETRACTIONS = {
    "QR": lo.retractions.QR(),
    "CholeskyQR": lo.retractions.CholeskyQR(),
    "polar-NS": lo.retractions.Polar(),
    "polar-SVD": lo.retractions.Polar(method="svd"),
    "polar-eigh": lo.retractions.Polar(method="eigh"),
    "Cayley": lo.retractions.Cayley(),
    "exponential": lo.retractions.Exponential(),
    "exponential-canonical": lo.retractions.Exponential(metric="canonical"),
}
ESTIMATORS = {
    "full": lo.estimators.Full(),
    "SAGA": lo.estimators.Saga(8),
    "SAGA-full-table": lo.estimators.Saga(8, structured=False),
    "SVRG": lo.estimators.Svrg(8),
    "loopless": lo.estimators.Svrg(8, loopless=True),
    "SVRG-momentum": lo.estimators.Momentum(0.3, base=lo.estimators.Svrg(8)),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("retraction", RETRACTIONS.values(), ids=RETRACTIONS)
def test_variance_reduced_runs_converge(retraction, estimator):
    """To 1e-6, on the manifold throughout; the step is chosen at the start."""
    problem = lo.problems.SampledPCA.random(400, 8, 3, spectrum=np.linspace(1.0, 0.1, 8), rng=0)
    method = lo.riemannian(retraction, estimator=estimator)
    stop = lo.GradientNorm(rtol=1e-6) | lo.MaxEpochs(300)
    result = lo.minimize(problem, method=method, stop=stop, rng=1)
    assert result.success
    assert np.max(result.trace["distance"]) < 1e-12
    assert result.feasible_fun == pytest.approx(problem.optimum()[1], rel=1e-9)
    assert "step=" in result.method.name


@pytest.mark.parametrize("retraction", RETRACTIONS.values(), ids=RETRACTIONS)
def test_sgd_does_not(retraction):
    """The control: a minibatch's noise stays with a constant step."""
    problem = lo.problems.SampledPCA.random(400, 8, 3, spectrum=np.linspace(1.0, 0.1, 8), rng=0)
    estimator = lo.estimators.MiniBatch(8)
    method = lo.riemannian(retraction, step=0.1, estimator=estimator)
    result = lo.minimize(problem, method=method, stop=lo.MaxEpochs(100), rng=1)
    assert np.min(result.trace["gradient_norm"]) > 1e-4 * result.trace["gradient_norm"][0]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
def test_stochastic_qr_is_three_lines(rng, shape, dtype):
    """Trajectories of R-SGD under replayed samples."""
    n, p = shape
    rows = rng.standard_normal((30, n))
    if dtype == "complex128":
        rows = rows + 1j * rng.standard_normal((30, n))
    problem = lo.LinearModelSum(
        lambda u, terms: -0.25 * np.sum(np.abs(u) ** 4, axis=1),
        lambda u, terms: -(np.abs(u) ** 2) * u,
        rows,
        p=p,
    )
    draws = [rng.integers(30, size=4) for _ in range(25)]
    x = x0 = ref.orthonormal(rng, shape, dtype)
    expected = [x0]
    for terms in draws:
        a = rows[terms]
        u = a @ x
        g = -a.conj().T @ (np.abs(u) ** 2 * u) / 4
        q, r = np.linalg.qr(x - 0.01 * (g - x @ ref.sym(ref.H(x) @ g)))
        x = q * (np.diag(r) / np.abs(np.diag(r)))
        expected.append(x)
    xs = []
    estimator = lo.estimators.MiniBatch(4, lo.samplers.Replay(draws))
    lo.minimize(
        problem,
        x0,
        lo.riemannian(step=0.01, estimator=estimator),
        stop=lo.MaxIterations(25),
        record=lo.Every(1),
        callback=lambda row: xs.append(row.x.copy()),
    )
    assert len(xs) == 26
    assert max(np.abs(a - b).max() for a, b in zip(xs, expected, strict=True)) < 1e-12


@pytest.mark.parametrize("retraction", RETRACTIONS.values(), ids=RETRACTIONS)
def test_products_and_stacks(rng, retraction):
    """A free block moves along its gradient; a stack is solved matrix by matrix."""
    a = rng.standard_normal((40, 5))
    b = a @ ref.orthonormal(rng, (5, 3)) + 0.5 + 0.1 * rng.standard_normal((40, 3))

    def grad(x, terms):
        residual = a[terms] @ x["W"] + x["b"] - b[terms]
        return {"W": a[terms].T @ residual / len(residual), "b": residual.mean(axis=0)}

    def fun(x, terms):
        return 0.5 * float(np.mean(np.sum((a[terms] @ x["W"] + x["b"] - b[terms]) ** 2, axis=1)))

    problem = lo.FiniteSum(
        fun, grad, n_terms=40, shape={"W": (5, 3), "b": (3,)},
        constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
    )  # fmt: skip
    stop = lo.GradientNorm(rtol=1e-5) | lo.MaxEpochs(400)
    method = lo.riemannian(retraction, estimator=lo.estimators.Svrg(4))
    result = lo.minimize(problem, method=method, stop=stop, rng=0)
    assert result.success
    assert lo.stiefel.distance(result.x["W"]) < 1e-13

    rows = rng.standard_normal((3, 60, 6)) * np.linspace(1.5, 0.5, 6)
    stack = lo.FiniteSum(
        lambda x, t: -0.5 * np.mean(np.sum((rows[:, t] @ x) ** 2, axis=2), axis=1),
        lambda x, t: -rows[:, t].mT @ (rows[:, t] @ x) / rows[:, t].shape[1],
        n_terms=60,
        shape=(3, 6, 2),
    )
    result = lo.minimize(stack, method=method, stop=stop, rng=0)
    assert result.fun.shape == (3,)
    assert result.success
    least = [-0.5 * np.sort(np.linalg.eigvalsh(r.T @ r / 60))[-2:].sum() for r in rows]
    np.testing.assert_allclose(result.feasible_fun, least, rtol=1e-6)


def test_the_metric_can_be_chosen():
    """On St(n, p) the canonical gradient turns the columns twice as fast."""
    problem = lo.problems.UnbalancedProcrustes.random(8, 3, rng=0)
    x0 = lo.stiefel.random(8, 3, rng=1)
    ends = [
        lo.minimize(
            problem, x0, lo.riemannian(step=1e-3, tangent=tangent), stop=lo.MaxIterations(1)
        ).x
        for tangent in (None, lo.fields.Canonical(1.0))
    ]
    turned = [x0.T @ (x - x0) for x in ends]
    turned = [0.5 * (t - t.T) for t in turned]
    assert np.linalg.norm(turned[1] - 2 * turned[0]) < 0.02 * np.linalg.norm(turned[1])
    apart = [x - x0 - x0 @ (x0.T @ (x - x0)) for x in ends]
    assert np.linalg.norm(apart[1] - apart[0]) < 0.02 * np.linalg.norm(apart[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retraction": "qr"}, "retraction must be one such as"),
        ({"retraction": lo.retractions.QR}, "retraction must be one such as"),
        ({"estimator": "svrg"}, "estimator must be an estimator"),
        ({"step": -1.0}, "step must be positive"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        lo.riemannian(**arguments)


# -- searches ---------------------------------------------------------------------------------

SEARCHES = {
    "nonmonotone": lo.searches.LineSearch(),
    "Armijo": lo.searches.LineSearch(memory=0.0),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("retraction", RETRACTIONS.values(), ids=RETRACTIONS)
@pytest.mark.parametrize(
    "problem",
    [
        lo.problems.Procrustes.random(8, rng=0),
        lo.problems.Procrustes.random(6, dtype=np.complex128, rng=1),
        lo.problems.PCA.random(20, 4, rng=2),
        lo.problems.Procrustes.random(4, stack=(3,), rng=3),
    ],
    ids=repr,
)
def test_line_searches_with_a_retraction_solve(problem, retraction, search):
    """To 1e-9, on the manifold throughout, and f never above where it began."""
    method = lo.riemannian(retraction, search=search)
    result = lo.minimize(problem, method=method, tol=1e-9, rng=1)
    assert result.success
    assert np.max(result.trace["distance"]) < 1e-10  # eigh loses u ||Z||^2 in a long step
    fun = result.trace["fun"]
    assert np.all(fun[-1] < fun[0])
    if search.memory == 0.0:
        assert np.all(np.diff(fun, axis=0) <= 1e-11 * np.abs(fun[:-1]))


@pytest.mark.parametrize("base", [lo.landing_lbfgs(), lo.landing_cg(), lo.landing_newton()])
def test_directions_with_a_memory_take_a_retraction(base):
    method = dataclasses.replace(base, move=lo.retractions.QR())
    problem = lo.problems.Procrustes.random(10, rng=0)
    result = lo.minimize(problem, method=method, tol=1e-9, rng=1)
    assert result.success
    assert np.max(result.trace["distance"]) < 1e-13


def test_a_step_and_a_search_are_refused():
    with pytest.raises(ValueError, match=r"step = 0\.1 was given with a search"):
        lo.riemannian(step=0.1, search=lo.searches.LineSearch())
    with pytest.raises(ValueError, match="NewtonSchulz"):
        lo.Method(search=lo.searches.LineSearch(), field=lo.landing().field)


# -- searches on every library, in every metric -------------------------------------------------

RETRACTIONS = [
    lo.retractions.QR(),
    lo.retractions.CholeskyQR(),
    lo.retractions.Polar(),
    lo.retractions.Polar("eigh"),
    lo.retractions.Polar("svd"),
    lo.retractions.Cayley(),
    lo.retractions.Exponential(),
    lo.retractions.Exponential("canonical"),
]


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 4, 4), (2, 6, 3)])
@pytest.mark.parametrize("retraction", RETRACTIONS, ids=repr)
def test_searches_on_every_library(arrays, shape, retraction):
    *stack, n, p = shape
    rng = np.random.default_rng(0)
    a = arrays.to(rng.standard_normal((*stack, p, 9)))
    b = arrays.to(rng.standard_normal((*stack, n, 9)))
    problem = lo.problems.Procrustes(a, b)
    x0 = arrays.to(lo.stiefel.random(n, p, stack=tuple(stack), rng=1))
    for options in (
        {"search": lo.searches.LineSearch()},
        {"search": lo.searches.LineSearch(memory=0.0)},
        {"search": lo.searches.LineSearch(), "tangent": lo.fields.Canonical(1.0)},
    ):
        assert lo.minimize(problem, x0, lo.riemannian(retraction, **options)).success
    wolfe = lo.Method(
        lo.searches.Wolfe(),
        lo.fields.Field(lo.fields.PSI, None),
        retraction,
        lo.directions.LBFGS(),
    )
    assert lo.minimize(problem, x0, wolfe).success


def _curved_sum():
    rng = np.random.default_rng(0)
    c = rng.standard_normal((60, 7, 3))
    return lo.FiniteSum(
        lambda x, t: float(np.mean(np.sum(c[t] * x + 0.1 * (c[t] * x) ** 2, (1, 2)))),
        lambda x, t: np.mean(c[t] + 0.2 * c[t] ** 2 * x, axis=0),
        n_terms=60,
        shape=(7, 3),
    )


@pytest.mark.parametrize(
    "tangent",
    [
        None,
        lo.fields.Canonical(),
        lo.fields.Canonical(1.0),
        lo.fields.Canonical(3.0),
        lo.fields.BetaMetric(0.25),
        lo.fields.Euclidean(metric_scale=2.0),
    ],
    ids=repr,
)
def test_a_step_chosen_at_the_start_is_of_the_metric(tangent):
    """1 / (2 L) over the multiple of the Euclidean gradient that the tangent is: stable in each."""
    problem, x0 = _curved_sum(), lo.stiefel.random(7, 3, rng=1)
    full = lo.minimize(problem, x0, lo.riemannian(tangent=tangent), tol=1e-8, rng=0)
    assert full.success
    svrg = lo.riemannian(tangent=tangent, estimator=lo.estimators.Svrg(8))
    assert lo.minimize(problem, x0, svrg, tol=1e-6, rng=0).success
    landing = lo.landing_svrg(batch_size=8, tangent=tangent)
    assert lo.minimize(problem, x0, landing, tol=1e-6, rng=0).success


@pytest.mark.parametrize("shape", [(8, 8), (12, 4), (6, 1)])
@pytest.mark.parametrize("guess", [lo.steps.Constant(1.0), lo.steps.BarzilaiBorwein()], ids=repr)
def test_armijo_is_monotone_beyond_rounding_and_does_not_stall(shape, guess):
    n, p = shape
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((n, n)), rng.standard_normal(shape)
    a, d = a @ a.T, np.arange(1.0, p + 1)
    problem = lo.Objective(
        fun=lambda x: 0.5 * float(np.sum((a @ x) * x * d)) + float(np.vdot(b, x)),
        grad=lambda x: a @ x * d + b,
        shape=shape,
    )
    search = lo.searches.LineSearch(guess, memory=0.0)
    result = lo.minimize(problem, method=lo.riemannian(search=search), tol=1e-9, rng=0)
    assert result.success
    fun = result.trace["fun"]
    assert np.all(np.diff(fun) <= 50 * np.finfo(float).eps * np.abs(fun).max())
