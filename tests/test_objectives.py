"""Problems from plain functions: what is accepted, what is refused, and any class with the names."""

from __future__ import annotations

import numpy as np
import pytest

import landingopt as lo
from landingopt.objectives import Problem


def polar(x):
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return u @ vh


TARGET = np.random.default_rng(0).standard_normal((6, 4))
START = polar(np.random.default_rng(1).standard_normal((6, 4)))
BEST = polar(TARGET)


def fun(x):
    return 0.5 * np.sum((x - TARGET) ** 2)


def grad(x):
    return x - TARGET


def both(x):
    return fun(x), grad(x)


# -- what is enough -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "functions",
    [
        {"fun": fun, "grad": grad},
        {"value_and_gradient": both},
        {"fun": fun, "value_and_gradient": both},
        {"grad": grad, "value_and_gradient": both},
        {"fun": fun, "grad": grad, "value_and_gradient": both, "hessp": lambda x, v: v},
    ],
    ids=lambda functions: " + ".join(functions),
)
def test_what_is_enough_for_a_solve(functions):
    problem = lo.Objective(shape=(6, 4), **functions)
    assert isinstance(problem, Problem)
    for method in (lo.landing(), lo.landing(step=0.05)):
        result = lo.minimize(problem, START, method)
        assert result.success
        assert np.linalg.norm(result.feasible_x - BEST) <= 1e-4
        assert result.feasible_fun == pytest.approx(fun(result.feasible_x))


def test_positional_functions():
    problem = lo.Objective(fun, grad, shape=(6, 4))
    assert problem.fun is fun
    assert problem.grad is grad
    assert problem.constraint == lo.Stiefel()
    assert repr(problem) == "Objective(fun, grad, shape=(6, 4))"
    assert repr(lo.Objective(value_and_gradient=both, shape=(6, 4))) == (
        "Objective(value_and_gradient, shape=(6, 4))"
    )


def test_the_pair_is_one_call():
    """f and its gradient share their work: no other function is called by the line search."""

    def never(x):
        raise AssertionError("called")

    problem = lo.Objective(fun, never, value_and_gradient=both, shape=(6, 4))
    result = lo.minimize(problem, START)
    assert result.success
    assert result.nfev == result.njev


def test_a_gradient_alone_is_one_call():
    """A fixed step never reads f: value_and_gradient is left alone where grad is there."""
    calls = []

    def counted(x):
        calls.append(1)
        return both(x)

    problem = lo.Objective(grad=grad, value_and_gradient=counted, shape=(6, 4))
    record = lo.Every(10**6)
    result = lo.minimize(
        problem, START, lo.landing(step=0.05), stop=lo.MaxIterations(30), record=record
    )
    assert result.nfev == 0
    assert len(calls) <= 5  # the rows at both ends


@pytest.mark.parametrize("like", [np.zeros(3, "float32"), np.zeros((), "complex64")])
def test_like_tells_what_a_random_start_is_made_of(like):
    target = TARGET.astype(like.dtype)
    problem = lo.Objective(
        lambda x: 0.5 * np.sum(np.abs(x - target) ** 2), lambda x: x - target, shape=(6, 4),
        like=like,
    )  # fmt: skip
    assert lo.minimize(problem, rng=0).x.dtype == like.dtype
    assert lo.minimize(problem, START.astype("complex64"), stop=lo.MaxIterations(0)).nit == 0


def test_like_in_another_library():
    torch = pytest.importorskip("torch")
    target = torch.from_numpy(TARGET)
    problem = lo.Objective(
        lambda x: 0.5 * torch.sum((x - target) ** 2), lambda x: x - target, shape=(6, 4),
        like=target,
    )  # fmt: skip
    result = lo.minimize(problem, rng=0)
    assert isinstance(result.x, torch.Tensor)
    assert np.linalg.norm(result.feasible_x.numpy() - BEST) <= 1e-4


class Bare:
    """A problem of a user's: the protocol's names and nothing else."""

    shape = (6, 4)
    constraint = lo.Stiefel()
    value_and_gradient = None
    hessp = None

    def fun(self, x):
        return fun(x)

    def grad(self, x):
        return grad(x)


def test_any_class_with_the_names_is_a_problem():
    assert isinstance(Bare(), Problem)
    result = lo.minimize(Bare(), START)
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-4


def test_a_class_that_lacks_a_name():
    class Incomplete:
        shape = (6, 4)
        constraint = lo.Stiefel()

        def fun(self, x):
            return fun(x)

    with pytest.raises(TypeError, match=r"Incomplete is not a problem .*grad, value_and_gradient"):
        lo.minimize(Incomplete(), START)


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "functions", [{}, {"fun": fun}, {"fun": fun, "hessp": lambda x, v: v}], ids=len
)
def test_a_gradient_is_needed(functions):
    with pytest.raises(TypeError, match=r"a gradient is needed.*lo\.autodiff\.jax"):
        lo.Objective(shape=(6, 4), **functions)


@pytest.mark.parametrize("name", ["fun", "grad", "hessp", "value_and_gradient"])
@pytest.mark.parametrize("value", [3.0, "f", TARGET])
def test_what_is_no_function(name, value):
    functions = {"fun": fun, "grad": grad} | {name: value}
    with pytest.raises(TypeError, match=f"{name} must be a function, got {type(value).__name__}"):
        lo.Objective(shape=(6, 4), **functions)


def test_a_shape_is_needed():
    with pytest.raises(TypeError, match="shape"):
        lo.Objective(fun, grad)


@pytest.mark.parametrize(
    "shape", [6, "64", (6.0, 4), (True, 4), None, (), {}, ((6, 4), 3), {"w": 6}, [[6, 4]], ("6",)]
)
def test_what_is_no_shape(shape):
    with pytest.raises(TypeError, match=r"shape must be a tuple of integers such as \(n, p\)"):
        lo.Objective(fun, grad, shape=shape)


@pytest.mark.parametrize("shape", [(0, 4), (6, -1), {"w": (6, 0)}, ((6, 4), (0,))])
def test_sizes_are_at_least_one(shape):
    with pytest.raises(ValueError, match="at least 1"):
        lo.Objective(fun, grad, shape=shape, constraint=lo.Euclidean())


@pytest.mark.parametrize("shape", [[6, 4], (np.int64(6), np.int32(4))])
def test_shapes_are_plain_tuples(shape):
    problem = lo.Objective(fun, grad, shape=shape)
    assert problem.shape == (6, 4)
    assert all(type(size) is int for size in problem.shape)


@pytest.mark.parametrize("shape", [(6,), {"w": (6, 4), "b": (3,)}, ((6, 4), (3,))])
def test_a_stiefel_block_is_a_matrix(shape):
    with pytest.raises(ValueError, match=r"needs a shape \(n, p\).*\(n, 1\).*lo\.Euclidean\(\)"):
        lo.Objective(fun, grad, shape=shape)


@pytest.mark.parametrize("constraint", [lo.Stiefel, lo.Euclidean])
def test_a_constraint_is_an_instance(constraint):
    with pytest.raises(TypeError, match=rf"write lo\.{constraint.__name__}\(\) with parentheses"):
        lo.Objective(fun, grad, shape=(6, 4), constraint=constraint)


@pytest.mark.parametrize("constraint", ["Stiefel", 1, [lo.Stiefel()], {"w": lo.Stiefel()}])
def test_what_is_no_constraint(constraint):
    with pytest.raises(TypeError, match=r"lo\.Stiefel\(\) or lo\.Euclidean\(\)"):
        lo.Objective(fun, grad, shape=(6, 4), constraint=constraint)


SHAPES = {"w": (6, 4), "b": (3,)}
BOTH = {"w": lo.Stiefel(), "b": lo.Euclidean()}


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        ({"w": lo.Stiefel()}, r"\['w'\].*\['b', 'w'\]"),
        (BOTH | {"c": lo.Euclidean()}, r"\['b', 'c', 'w'\].*\['b', 'w'\]"),
        ((lo.Stiefel(), lo.Euclidean()), r"lo\.Stiefel\(\) or lo\.Euclidean\(\)"),
    ],
)
def test_constraints_name_the_blocks(constraint, told):
    with pytest.raises((TypeError, ValueError), match=told):
        lo.Objective(fun, grad, shape=SHAPES, constraint=constraint)


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        ((lo.Stiefel(),), "1 constraints were given for 2 blocks"),
        ((lo.Stiefel(),) * 3, "3 constraints were given for 2 blocks"),
        (BOTH, r"lo\.Stiefel\(\) or lo\.Euclidean\(\)"),
    ],
)
def test_constraints_of_a_tuple(constraint, told):
    with pytest.raises((TypeError, ValueError), match=told):
        lo.Objective(fun, grad, shape=((6, 4), (3,)), constraint=constraint)


def test_one_constraint_holds_for_all_blocks():
    problem = lo.Objective(fun, grad, shape={"v": (6, 4), "w": (3, 3)})
    assert problem.constraint == {"v": lo.Stiefel(), "w": lo.Stiefel()}
    problem = lo.Objective(fun, grad, shape=((6,), (2, 2)), constraint=lo.Euclidean())
    assert problem.constraint == (lo.Euclidean(), lo.Euclidean())


# -- free numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 2, 2)])
def test_an_unconstrained_problem_is_solved_too(shape):
    """A least squares problem without any orthogonality; distance 0 throughout."""
    target = np.random.default_rng(0).standard_normal(shape)
    scales = np.random.default_rng(1).uniform(0.5, 3.0, shape)
    problem = lo.Objective(
        lambda x: 0.5 * np.sum(scales * (x - target) ** 2), lambda x: scales * (x - target),
        shape=shape, constraint=lo.Euclidean(),
    )  # fmt: skip
    for method in (lo.landing(), lo.landing(step=0.2)):
        result = lo.minimize(problem, method=method, tol=1e-9)
        assert result.success, result.message
        np.testing.assert_allclose(result.x, target, atol=1e-8)
        assert result.distance == 0.0
        assert result.component is None
        np.testing.assert_array_equal(result.x, result.feasible_x)


def test_constraints_are_values():
    assert lo.Stiefel() == lo.Stiefel()
    assert lo.Stiefel() != lo.Euclidean()
    assert len({lo.Stiefel(), lo.Stiefel(), lo.Euclidean()}) == 2
