"""Estimators: what the field follows beside what is measured; momentum and Adam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import reference as ref
from test_trajectories import assert_close, run

import landingopt as lo


@dataclass(frozen=True)
class Times:
    """An estimator of one's own: the gradient times a number."""

    factor: float

    def start(self, oracle, value):
        return TimesRun(self, lo.estimators.Full().start(oracle, value))


class TimesRun:
    def __init__(self, recipe, base):
        self.recipe, self.base = recipe, base

    def fill(self, point):
        if point.estimate is None:
            self.base.fill(point)
            point.estimate = [self.recipe.factor * g for g in point.gradient]


class Elsewhere:
    """An estimator that leaves no gradient at all, as a minibatch does."""

    def __init__(self, grad):
        self.grad = grad

    def start(self, oracle, value):
        return self

    def fill(self, point):
        if point.estimate is None:
            point.estimate = [self.grad(point.x[0])]


def riemannian_norm(x, g):
    return np.linalg.norm(g - x @ ref.sym(ref.H(x) @ g))


def opened(estimator, step=0.05, lam=1.0, field=None, move=None):
    """An open loop with an estimator, composed by hand."""
    return lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Safeguarded(lo.steps.Constant(step)))
        if field is None
        else lo.searches.OpenLoop(lo.steps.Constant(step)),
        field=field or lo.fields.Field(normal=lo.fields.Penalty(lam)),
        move=move or lo.moves.Additive(),
        estimator=estimator,
    )


# -- the estimate beside the gradient ---------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_the_field_follows_the_estimate(rng, shape):
    """Three times the gradient of f is the gradient of 3 f."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, opened(Times(3.0)), 30)
    plain = lo.Objective(lambda x: 3 * fun(x), lambda x: 3.0 * grad(x), shape=shape)
    expected, _ = run(plain, x0, opened(lo.estimators.Full()), 30)
    assert_close(xs, expected, 1e-12)


PSI_MOVES = {
    "landing": {},
    "psi": {"field": lo.landing().field, "move": lo.moves.NewtonSchulz()},
}


@pytest.mark.parametrize("parts", PSI_MOVES.values(), ids=PSI_MOVES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_what_is_measured_is_the_exact_gradient(rng, shape, parts):
    """The norms, the feasible values and the stop; also where the field's norm would be at hand."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.2)
    problem = lo.Objective(fun, grad, shape=shape)
    estimators = {"times": Times(7.0), "elsewhere": Elsewhere(lambda x: 7.0 * grad(x))}
    for estimator in estimators.values():
        xs, result = run(problem, x0, opened(estimator, 0.005, **parts), 25)
        norms = [riemannian_norm(x, grad(x)) for x in xs]
        np.testing.assert_allclose(result.trace["gradient_norm"], norms, rtol=1e-9)
        assert result.gradient_norm == pytest.approx(norms[-1], rel=1e-9)
        values = [fun(ref.polar(x)) for x in xs]
        np.testing.assert_allclose(result.trace["feasible_fun"], values, rtol=1e-9)
        if isinstance(estimator, Elsewhere):
            assert result.njev == 0  # what the observer measures is not the method's
        first = riemannian_norm(ref.polar(x0), grad(ref.polar(x0)))
        stop = lo.GradientNorm(rtol=1e-3) | lo.MaxIterations(5000)
        done = lo.minimize(problem, x0, opened(estimator, 0.01, **parts), stop=stop)
        assert done.success
        at_end = riemannian_norm(done.x, grad(done.x))
        assert 0.5e-3 * first < at_end <= 1e-3 * first * (1 + 1e-9)


def test_each_block_follows_its_own_estimate(rng):
    shape = {"W": (7, 4), "b": (3,)}
    fun, grad = ref.quadratic(rng, shape["W"])
    x0 = {"W": ref.in_tube(rng, shape["W"], 0.3), "b": ref.gaussian(rng, (3,))}
    constraint = {"W": lo.Stiefel(), "b": lo.Euclidean()}

    def scaled(t):
        return lo.Objective(
            lambda x: t * float(fun(x["W"]) + np.sum((x["b"] - 2) ** 2)),
            lambda x: {"W": t * grad(x["W"]), "b": t * 2 * (x["b"] - 2)},
            shape=shape,
            constraint=constraint,
        )

    xs, _ = run(scaled(1.0), x0, opened(Times(3.0)), 20)
    expected, _ = run(scaled(3.0), x0, opened(lo.estimators.Full()), 20)
    for name in shape:
        assert_close([x[name] for x in xs], [x[name] for x in expected], 1e-12)
