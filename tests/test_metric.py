"""``directions.Metric``: line searches along the gradient of another metric."""

import numpy as np
import pytest

import landingopt as lo
from landingopt.directions.metric import MetricRun
from landingopt.fields import PSI, Field
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Space

TANGENTS = [lo.fields.Canonical(1.0), lo.fields.BetaMetric(0.25), lo.fields.Euclidean()]


def riemannian_gradient(x, g, beta):
    """Of the metric beta ||Omega||^2 + ||V||^2, written out."""
    m = x.conj().T @ g
    skew = (m - m.conj().T) / 2
    return x @ skew / beta + g - x @ m


@pytest.mark.parametrize(
    ("tangent", "beta"),
    [
        (lo.fields.Canonical(1.0), 0.5),
        (lo.fields.BetaMetric(0.25), 0.25),
        (lo.fields.Euclidean(), 1.0),
    ],
)
@pytest.mark.parametrize("shape", [(7, 7), (9, 4)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_it_is_the_metrics_gradient(tangent, beta, shape, dtype):
    rng = np.random.default_rng(1)
    g = rng.standard_normal(shape).astype(dtype)
    if dtype is np.complex128:
        g = g + 1j * rng.standard_normal(shape)
    x = lo.stiefel.random(*shape, rng=2, dtype=dtype)
    problem = lo.Objective(fun=lambda x: float(np.vdot(g, x).real), grad=lambda x: g, shape=shape)
    space = Space(problem.shape, problem.constraint, x)
    field = Field(PSI, None).start(space)
    point: Point = field.point(space)
    point.place([x])
    Oracle(problem, space).fill_gradient(point)
    field(point)
    (form,) = MetricRun(tangent).direction(point)
    np.testing.assert_allclose(form.array(), riemannian_gradient(x, g, beta), atol=1e-12)


@pytest.mark.parametrize("tangent", TANGENTS)
@pytest.mark.parametrize("memory", [0.0, 0.95])
@pytest.mark.parametrize(
    "retraction",
    [lo.retractions.QR(), lo.retractions.Cayley(), lo.retractions.Exponential("canonical")],
)
def test_searches_solve_in_every_metric(tangent, memory, retraction):
    search = lo.searches.LineSearch(memory=memory)
    method = lo.riemannian(retraction, search=search, tangent=tangent)
    problem = lo.problems.Brockett.random(20, 4, rng=3)
    result = lo.minimize(problem, method=method, tol=1e-8, rng=1)
    _, fun = problem.optimum()
    assert result.success
    assert abs(result.feasible_fun - fun) < 1e-10 * abs(fun)


def test_the_multiple_of_the_metric_does_not_matter():
    problem = lo.problems.Procrustes.random(12, 5, rng=0)
    counts = {
        lo.minimize(
            problem,
            method=lo.riemannian(
                search=lo.searches.LineSearch(), tangent=lo.fields.Canonical(scale)
            ),
            tol=1e-8,
            rng=0,
        ).nfev
        for scale in (0.5, 1.0, 4.0)
    }
    assert len(counts) == 1


def test_metrics_differ_and_their_euclidean_one_is_the_search_itself():
    problem = lo.problems.Brockett.random(30, 4, rng=0)

    def run(tangent):
        method = lo.riemannian(search=lo.searches.LineSearch(), tangent=tangent)
        return lo.minimize(problem, method=method, tol=1e-8, rng=0).nfev

    plain = run(None)
    assert run(lo.fields.Euclidean()) == run(lo.fields.NearTangent()) == plain
    assert run(lo.fields.Canonical(1.0)) != plain


def test_stacks_and_products():
    method = lo.riemannian(
        lo.retractions.Polar(), search=lo.searches.LineSearch(), tangent=lo.fields.Canonical(1.0)
    )
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 3, 7)), rng.standard_normal((5, 9, 7))
    stack = lo.problems.Procrustes(a, b)
    x0 = lo.stiefel.random(9, 3, stack=(5,), rng=1)
    together = lo.minimize(stack, x0, method, tol=1e-8)
    assert together.success
    for i in range(5):
        alone = lo.minimize(lo.problems.Procrustes(a[i], b[i]), x0[i], method, tol=1e-8)
        assert alone.success
        assert abs(alone.feasible_fun - together.feasible_fun[i]) < 1e-9 * abs(alone.feasible_fun)

    target, shift = lo.stiefel.random(6, 2, rng=2), rng.standard_normal((4, 3))
    blocks = lo.Objective(
        fun=lambda x: float(-2 * np.sum(x["q"] * target) + np.sum((x["w"] - shift) ** 2)),
        grad=lambda x: {"q": -2 * target, "w": 2 * (x["w"] - shift)},
        shape={"q": (6, 2), "w": (4, 3)},
        constraint={"q": lo.Stiefel(), "w": lo.Euclidean()},
    )
    result = lo.minimize(blocks, method=method, tol=1e-9, rng=0)
    assert result.success
    np.testing.assert_allclose(result.x["q"], target, atol=1e-6)
    np.testing.assert_allclose(result.x["w"], shift, atol=1e-6)


def test_it_is_refused_without_a_line_search():
    metric = lo.directions.Metric()
    psi, move = Field(PSI, None), lo.moves.NewtonSchulz()
    for search in (lo.searches.Wolfe(), lo.searches.OpenLoop(lo.steps.Constant(0.1))):
        with pytest.raises(ValueError, match="Metric is for LineSearch"):
            lo.Method(search, psi, move, metric)
    lo.Method(lo.searches.LineSearch(), psi, move, metric)
    with pytest.raises(TypeError, match="tangent must be a tangent term"):
        lo.directions.Metric("canonical")
