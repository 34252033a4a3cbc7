"""Directions with a memory, against naive copies in plain NumPy, along whole runs.

A recorder notes the points a direction was given and what it answered; the references below know only
those points. Each has a control: the same reference with one thing wrong must not agree.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference as ref
from reference import H, inner, sym

import landingopt as lo
from landingopt import _xp
from landingopt.space import Space

PSI = lo.fields.Field(tangent=lo.fields.Euclidean(exact=False), normal=None)


# -- what a direction was given, and what it said -------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """A direction that notes copies, on the host, of what goes in and out."""

    direction: Any
    rows: list[Any] = field(default_factory=list, compare=False)

    def start(self, space, oracle):
        return RecordedRun(self, self.direction.start(space, oracle), oracle)


class RecordedRun:
    def __init__(self, recipe, run, oracle):
        self.rows, self.run, self.counts = recipe.rows, run, oracle.counts

    def direction(self, point):
        row = SimpleNamespace(
            x=[host(a) for a in point.x],
            psi=[host(form.array()) for form in point.forms],
            first=point.previous is None,
            restart=np.array(point.restart),
            step=np.array(np.nan if point.step is None else point.step, dtype=float),
            norm=point.gradient_norm,
            nhev=self.counts.nhev,
            njev=self.counts.njev,
        )
        forms = self.run.direction(point)
        row.f = [host(form.array()) for form in forms]
        row.is_field = forms is point.forms
        row.length = getattr(self.run, "length", None)
        row.nhev, row.njev = self.counts.nhev - row.nhev, self.counts.njev - row.njev
        # Nothing that the search still needs has been written to.
        for form, before in zip(point.forms, row.psi, strict=True):
            np.testing.assert_array_equal(host(form.array()), before)
        for x, before in zip(point.x, row.x, strict=True):
            np.testing.assert_array_equal(host(x), before)
        self.rows.append(row)
        return forms


def host(a):
    return np.array(_xp.to_host(a))


def method_with(direction, **options):
    return lo.Method(
        search=lo.searches.Wolfe(**options),
        field=PSI,
        move=lo.moves.NewtonSchulz(),
        direction=direction,
    )


def recorded(direction, problem, x0, *, options=None, **keywords):
    """The rows of a run, and its result."""
    spy = Recorded(direction)
    method = method_with(spy, **(options or {}))
    return spy.rows, lo.minimize(problem, x0, method, **keywords)


def fed(recipe, xs, gradients, restarts=()):
    """The rows of a direction at points of our choosing, handed over as a search would."""
    space = Space(xs[0].shape, lo.Stiefel(), xs[0])
    spy = Recorded(recipe)
    oracle = SimpleNamespace(counts=SimpleNamespace(nhev=0, njev=0))
    run, field_run = spy.start(space, oracle), PSI.start(space)
    points = [field_run.point(space), field_run.point(space)]
    for k, (x, g) in enumerate(zip(xs, gradients, strict=True)):
        point = points[k % 2]
        point.place([x])
        point.gradient, point.step = [g], 1.0
        field_run(point)
        point.previous = points[(k + 1) % 2] if k else None
        point.restart = k in restarts
        run.direction(point)
    return spy.rows


# -- L-BFGS: the references -----------------------------------------------------------------------


def two_loop(psi, pairs, scales, oldest_first=True):
    """H psi by the recursion of Nocedal; ``scales`` is the initial matrix, of each block."""
    q, alphas = [g.copy() for g in psi], []
    for s, y in reversed(pairs) if oldest_first else pairs:
        alphas.append(dot(s, q) / dot(s, y))
        q = [a - alphas[-1] * b for a, b in zip(q, y, strict=True)]
    q = [scale * a for scale, a in zip(scales, q, strict=True)]
    for (s, y), alpha in zip(pairs if oldest_first else reversed(pairs), reversed(alphas)):
        beta = dot(y, q) / dot(s, y)
        q = [a + (alpha - beta) * b for a, b in zip(q, s, strict=True)]
    return q


def dense(psi, pairs, scales):
    """H psi with H as a matrix of real numbers, updated pair by pair."""
    h = np.diag(np.concatenate([np.full(real(g).size, c) for g, c in zip(psi, scales)]))
    for s, y in pairs:
        s, y = (np.concatenate([real(a) for a in v]) for v in (s, y))
        left = np.eye(s.size) - np.outer(s, y) / (s @ y)
        h = left @ h @ left.T + np.outer(s, s) / (s @ y)
    return h @ np.concatenate([real(g) for g in psi])


def real(a):
    a = np.ascontiguousarray(a, dtype=np.result_type(a, np.float64))
    return a.reshape(-1).view(np.float64)


def dot(u, v):
    return sum(inner(a, b) for a, b in zip(u, v, strict=True))


def memories(rows, memory, by_block=True):
    """(pairs, scales) behind each row: None where there is no pair.

    A pair that is refused takes the place of the oldest one where the memory is full.
    """
    pairs, scales, out = [], [0.0] * len(rows[0].x), []
    for old, row in zip([None, *rows], rows, strict=False):
        if row.restart:
            pairs, scales = [], [0.0] * len(row.x)
        if not row.first:
            s, y = (
                [wide(b) - wide(a) for a, b in zip(u, v, strict=True)]
                for u, v in ((old.x, row.x), (old.psi, row.psi))
            )
            pairs = pairs[max(0, len(pairs) - memory + 1) :]
            if dot(s, y) > 1e-10 * np.sqrt(dot(s, s) * dot(y, y)):
                pairs = [*pairs, (s, y)]
                whole = dot(s, y) / dot(y, y)
                for i, (a, b) in enumerate(zip(s, y, strict=True)):
                    good = inner(a, b) > 1e-10 * np.sqrt(inner(a, a) * inner(b, b))
                    own = inner(a, b) / inner(b, b) if good else scales[i] or whole
                    scales = [*scales[:i], own if by_block else whole, *scales[i + 1 :]]
        out.append((list(pairs), scales) if pairs else None)
    return out


def wide(a):
    return a.astype(np.result_type(a, np.float64))


def lbfgs_error(rows, memory, product=two_loop, **options):
    """The largest relative error of the recorded directions against the reference, and how many."""
    worst, count = 0.0, 0
    by_block = options.pop("by_block", True)
    for row, known in zip(rows, memories(rows, memory, by_block), strict=True):
        if known is None:
            assert row.is_field
            continue
        expected = product([wide(g) for g in row.psi], *known, **options)
        f = row.f
        if product is dense:
            expected, f = [expected], [np.concatenate([real(a) for a in row.f])]
        gap = [a - b for a, b in zip(f, expected, strict=True)]
        worst = max(worst, np.sqrt(dot(gap, gap) / dot(expected, expected)))
        count += 1
    return worst, count


def problem_of(rng, shape, dtype="float64", condition=3.0):
    """||A X B - C||^2 / 2 with A of that condition; a wide X is the transpose of a tall one."""
    turn = H if shape[-2] < shape[-1] else lambda a: a
    n, p = max(shape[-2:]), min(shape[-2:])
    a = ref.orthonormal(rng, (*shape[:-2], n, n), dtype) * np.geomspace(1, condition, n).astype(
        dtype
    )
    b = ref.orthonormal(rng, (*shape[:-2], p, p), dtype) * np.linspace(1, 2, p).astype(dtype)
    c = ref.gaussian(rng, (*shape[:-2], n, p), dtype)

    def fun(x):
        return 0.5 * np.sum(np.abs(a @ turn(x) @ b - c) ** 2, axis=(-2, -1))

    def grad(x):
        return turn(H(a) @ (a @ turn(x) @ b - c) @ H(b))

    return lo.Objective(fun, grad, shape=shape)


# -- L-BFGS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 3, 8, 1000])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (7, 1)])
def test_lbfgs_is_the_two_loop_recursion(rng, shape, dtype, memory):
    problem = problem_of(rng, shape, dtype)
    x0 = ref.orthonormal(rng, shape, dtype)
    rows, result = recorded(lo.directions.LBFGS(memory), problem, x0, tol=1e-8)
    assert result.success
    assert rows[0].is_field
    error, count = lbfgs_error(rows, memory)
    assert count >= 0.9 * result.nit - 1 > 4
    assert error <= 1e-8
    assert lbfgs_error(rows, memory, dense)[0] <= 1e-8


def test_a_wrong_recursion_is_noticed(rng):
    """Pairs in the wrong order, a pair too few or too many: the comparison above would fail."""
    x0 = ref.orthonormal(rng, (9, 4))
    rows, _ = recorded(lo.directions.LBFGS(3), problem_of(rng, (9, 4)), x0, tol=1e-8)
    assert lbfgs_error(rows, 3)[0] <= 1e-8
    assert lbfgs_error(rows, 3, oldest_first=False)[0] > 1e-2
    for wrong in (2, 4):
        assert lbfgs_error(rows, wrong)[0] > 1e-2


@pytest.mark.parametrize("memory", [1, 3, 100])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_lbfgs_in_single_precision(rng, dtype, memory):
    for shape in [(6, 6), (9, 4)]:
        x0 = ref.orthonormal(rng, shape, dtype)
        problem = problem_of(rng, shape, dtype, condition=1.5)
        rows, result = recorded(lo.directions.LBFGS(memory), problem, x0, tol=1e-4)
        assert result.success
        assert {a.dtype for row in rows for a in row.f} == {np.dtype(dtype)}
        # The reference knows the pairs as they are stored, in single precision.
        assert lbfgs_error(rows, memory)[0] <= 1e-3


def test_lbfgs_in_every_library(arrays, rng):
    for shape in [(6, 6), (9, 4), (4, 9)]:
        for dtype in ("float64", "complex128"):
            x0 = ref.orthonormal(rng, shape, dtype)
            plain = problem_of(rng, shape, dtype)
            problem = lo.Objective(arrays.wrap(plain.fun), arrays.wrap(plain.grad), shape=shape)
            budget = lo.MaxIterations(15)
            rows, result = recorded(lo.directions.LBFGS(4), problem, arrays.to(x0), stop=budget)
            assert len(rows) == 15
            assert lbfgs_error(rows, 4)[0] <= 1e-8
            arrays.host(result.x)
            # Passes may be planned where NumPy looks at each: the way there differs a little.
            there = lo.minimize(problem, arrays.to(x0), lo.landing_lbfgs(4), tol=1e-9)
            numpy = lo.minimize(plain, x0, lo.landing_lbfgs(4), tol=1e-9)
            assert there.success and there.distance <= 1e-8
            assert abs(there.nfev - numpy.nfev) <= 0.2 * numpy.nfev + 5
            np.testing.assert_allclose(there.feasible_fun, numpy.feasible_fun, rtol=1e-9)


def curved(rng, shape, count, concave=()):
    """Points, and gradients whose differences turn against the steps that lead to ``concave``."""
    xs = [ref.orthonormal(rng, shape)]
    gradients = [ref.gaussian(rng, shape)]
    weights = np.geomspace(1.0, 10.0, shape[0])[:, None]
    for k in range(1, count):
        xs.append(ref.polar(xs[-1] + 0.1 * ref.gaussian(rng, shape)))
        sign = -1.0 if k in concave else 1.0
        gradients.append(gradients[-1] + sign * weights * (xs[-1] - xs[-2]))
        # psi of the point is what counts: take the step's normal part back.
        normal = xs[-1] @ sym(H(xs[-1]) @ gradients[-1]) - xs[-2] @ sym(H(xs[-2]) @ gradients[-2])
        gradients[-1] = gradients[-1] + normal
    return xs, gradients


@pytest.mark.parametrize("memory", [1, 2, 5, 8, 9, 17, 40])
def test_the_memory_grows_and_is_used_in_turn(rng, memory):
    """Beyond the first eight slots, and around many times."""
    xs, gradients = curved(rng, (9, 5), 60)
    rows = fed(lo.directions.LBFGS(memory), xs, gradients)
    known = memories(rows, memory)
    assert max(len(k[0]) for k in known if k) == memory
    assert lbfgs_error(rows, memory)[0] <= 1e-9


@pytest.mark.parametrize("memory", [1, 3, 8, 20])
def test_a_pair_against_the_curvature_is_left_out(rng, memory):
    concave = {1, 2, 7, 13, 14, 15, 30, 31}
    xs, gradients = curved(rng, (8, 4), 45, concave)
    rows = fed(lo.directions.LBFGS(memory), xs, gradients)
    sizes = [0 if known is None else len(known[0]) for known in memories(rows, memory)]
    assert sizes[:4] == [0, 0, 0, 1]
    assert lbfgs_error(rows, memory)[0] <= 1e-9
    slopes = [inner(row.psi[0], row.f[0]) for row in rows]
    assert min(slopes) > 0  # H is positive definite whatever comes


def test_a_pair_just_within_the_bound(rng):
    """<s, y> against 1e-10 ||s|| ||y||, from both sides."""
    x = ref.orthonormal(rng, (7, 3))
    old, new = x, ref.polar(x + 0.1 * ref.gaussian(rng, (7, 3)))
    s = new - old
    aside = ref.gaussian(rng, (7, 3))
    aside -= s * inner(s, aside) / inner(s, s)
    aside *= np.linalg.norm(s) / np.linalg.norm(aside)
    for cosine, kept in ((1e-9, True), (1e-11, False), (-1e-9, False), (0.0, False)):
        # The row's psi is set, so that y is what we say.
        space = Space((7, 3), lo.Stiefel(), x)
        field_run = PSI.start(space)
        points = [field_run.point(space), field_run.point(space)]
        psi = [ref.gaussian(rng, (7, 3))]
        psi.append(psi[0] + 3.0 * (aside + cosine * s))
        for point, at, value in zip(points, (old, new), psi, strict=True):
            point.place([at])
            point.forms[0]._array = value.copy()
        points[1].previous, points[1].step = points[0], 1.0
        run = lo.directions.LBFGS(3).start(space)
        assert run.direction(points[0]) is points[0].forms
        assert (run.direction(points[1]) is not points[1].forms) is kept


@pytest.mark.parametrize("memory", [1, 4, 20])
def test_after_a_restart_the_memory_is_empty(rng, memory):
    """One pair, of the last step, is all that it knows then."""
    xs, gradients = curved(rng, (8, 4), 40, concave={25})
    restarts = {6, 7, 18, 25}
    rows = fed(lo.directions.LBFGS(memory), xs, gradients, restarts)
    known = memories(rows, memory)
    assert [len(known[k][0]) for k in (6, 7, 18)] == [1, 1, 1]
    assert known[25] is None
    assert rows[25].is_field
    assert lbfgs_error(rows, memory)[0] <= 1e-9
    if memory > 1:  # the control: a memory that does not forget
        for row in rows:
            row.restart = np.array(False)
        assert max(lbfgs_error(rows[:25], memory)) > 1e-2


def test_the_search_tells_the_direction_to_start_afresh():
    """Trials along the direction that are not finite: the run goes on along the field."""
    target = ref.seeded(0, (6, 4))
    calls = SimpleNamespace(n=0)

    def fun(x):
        calls.n += 1
        return np.nan if 6 <= calls.n < 36 else 0.5 * np.sum((x - target) ** 2)

    problem = lo.Objective(fun, lambda x: x - target, shape=(6, 4))
    x0 = ref.polar(ref.seeded(1, (6, 4)))
    rows, result = recorded(lo.directions.LBFGS(8), problem, x0, record=lo.Every(10**6), tol=1e-8)
    assert result.success
    assert [bool(row.restart) for row in rows].count(True) == 1
    assert lbfgs_error(rows, 8)[0] <= 1e-8


def product_problem(rng, scales=(1.0, 1.0, 1.0), couple=0.3):
    """A tall, a wide and a free block; the blocks are coupled through their first columns."""
    tall, tall_grad = ref.quadratic(rng, (7, 3), condition=10.0)
    flat, flat_grad = ref.quadratic(rng, (5, 4), condition=10.0)
    target = ref.gaussian(rng, (3,))
    a, b, c = scales

    def gap(x):
        return x["W"][0] + x["V"][:3, 0] - x["b"]

    def fun(x):
        free = 0.5 * np.sum((x["b"] - target) ** 2)
        coupling = 0.5 * couple * np.sum(gap(x) ** 2)
        return float(a * tall(x["W"]) + b * flat(x["V"].T) + c * free + coupling)

    def grad(x):
        g = {"W": a * tall_grad(x["W"]), "V": b * flat_grad(x["V"].T).T.copy()}
        g["b"] = c * (x["b"] - target) - couple * gap(x)
        g["W"][0] += couple * gap(x)
        g["V"][:3, 0] += couple * gap(x)
        return g

    problem = lo.Objective(
        fun,
        grad,
        shape={"W": (7, 3), "V": (4, 5), "b": (3,)},
        constraint={"W": lo.Stiefel(), "V": lo.Stiefel(), "b": lo.Euclidean()},
    )
    x0 = {
        "W": ref.orthonormal(rng, (7, 3)),
        "V": ref.orthonormal(rng, (4, 5)),
        "b": ref.gaussian(rng, (3,)),
    }
    return problem, x0


@pytest.mark.parametrize("memory", [1, 5, 100])
@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0), (1e4, 1.0, 1e-3)])
def test_a_product_has_an_initial_matrix_for_each_block(rng, scales, memory):
    problem, x0 = product_problem(rng, scales, couple=0.3 * min(scales))
    rows, result = recorded(lo.directions.LBFGS(memory), problem, x0, stop=lo.MaxIterations(60))
    assert len(rows) > 20
    assert lbfgs_error(rows, memory)[0] <= 1e-7
    if memory == 5:
        assert lbfgs_error(rows, memory, dense)[0] <= 1e-7
    assert lbfgs_error(rows, memory, by_block=False)[0] > 1e-2  # the control
    assert np.isfinite(result.fun)


def stack_rows(rows, i):
    """The rows as matrix i of a stack sees them, without those in which it waited or was done."""
    out = []
    for k, row in enumerate(rows):
        if k == 0 or row.step[i] > 0:
            new = SimpleNamespace(
                x=[row.x[0][i]], psi=[row.psi[0][i]], f=[row.f[0][i]], step=row.step[i] if k else 0,
                restart=bool(np.broadcast_to(row.restart, row.step.shape)[i]) if k else False,
                first=k == 0, is_field=row.is_field, length=row.length,
            )  # fmt: skip
            out.append(new)
    return out


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 2, 9, 4), (3, 4, 9)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_each_matrix_of_a_stack_has_its_own_memory(rng, shape, dtype):
    """The recursion on its own steps, the iterates and in the end the value of each alone."""
    problem = problem_of(rng, shape, dtype)
    x0 = ref.orthonormal(rng, shape, dtype)
    memory = 1000
    rows, result = recorded(lo.directions.LBFGS(memory), problem, x0, tol=1e-8)
    assert result.success
    for i in np.ndindex(shape[:-2]):
        own = stack_rows(rows, i)
        assert len(own) > 5
        assert lbfgs_error(own, memory)[0] <= 1e-7
        others = stack_rows(rows, tuple((j + 1) % n for j, n in zip(i, shape)))
        for row, other in zip(own, others, strict=False):  # the control
            row.f = other.f
        assert lbfgs_error(own, memory)[0] > 1e-2
        own = stack_rows(rows, i)

        alone = one_of(problem, x0, i)
        single, single_result = recorded(lo.directions.LBFGS(memory), alone, x0[i], tol=1e-8)
        assert single_result.success
        assert result.feasible_fun[i] == pytest.approx(single_result.feasible_fun, rel=1e-9)
        # A stack makes as many passes as its last matrix needs, and caps steps by other vectors.
        for k, (row, expected) in enumerate(zip(own[:5], single, strict=False)):
            if k and row.step * np.linalg.norm(own[k - 1].f[0], 2) > 0.7:
                break
            assert np.abs(ref.polar(row.x[0]) - ref.polar(expected.x[0])).max() <= 1e-3
        assert k > 0


@pytest.mark.parametrize(
    "direction", [lo.directions.LBFGS(1000), lo.directions.ConjugateGradient()]
)
def test_a_stack_of_one_is_one(rng, direction):
    """The same iterates, refusals and all, though a stack is refused once an advance."""
    refused = 0
    for _ in range(3):
        single = problem_of(rng, (8, 3), condition=10.0)
        x0 = ref.orthonormal(rng, (8, 3))
        stack = lo.Objective(
            lambda x, f=single.fun: np.array([f(a) for a in x]),
            lambda x, g=single.grad: np.stack([g(a) for a in x]),
            shape=(1, 8, 3),
        )
        alone, expected = recorded(direction, single, x0, tol=1e-8)
        rows, result = recorded(direction, stack, x0[None], tol=1e-8)
        own = stack_rows(rows, (0,))
        refused += len(rows) - len(own)
        assert result.success
        assert result.nfev == pytest.approx(expected.nfev, rel=0.3)  # rounding grows
        for row, one in zip(own[:25], alone, strict=False):
            np.testing.assert_allclose(row.x[0], one.x[0], atol=1e-6)
    assert refused > 0


def one_of(problem, x0, i):
    def fun(x):
        full = x0.copy()
        full[i] = x
        return float(problem.fun(full)[i])

    def grad(x):
        full = x0.copy()
        full[i] = x
        return problem.grad(full)[i].copy()

    return lo.Objective(fun, grad, shape=x0.shape[-2:])


@pytest.mark.parametrize(
    "memory",
    [
        3,
        1000,
    ],
)
def test_a_matrix_that_waits_keeps_its_direction(rng, memory):
    """The bracket of its search is along the direction that was refused."""
    parts = [ref.quadratic(rng, (10, 4), condition=30.0) for _ in range(6)]
    stack = lo.Objective(
        lambda x: np.array([f(a) for (f, _), a in zip(parts, x, strict=True)]),
        lambda x: np.stack([g(a) for (_, g), a in zip(parts, x, strict=True)]),
        shape=(6, 10, 4),
    )
    x0 = ref.orthonormal(rng, (6, 10, 4))
    rows, _ = recorded(lo.directions.LBFGS(memory), stack, x0, stop=lo.MaxIterations(100))
    waited = 0
    for old, new in itertools.pairwise(rows):
        for i in range(6):
            if new.step[i] == 0 and not np.broadcast_to(new.restart, (6,))[i]:
                waited += 1
                assert relative(new.f[0][i], old.f[0][i]) <= 1e-8
    assert waited > 0


def test_a_coupled_stack_has_one_memory(rng):
    shape = (3, 6, 4)
    fun, grad = ref.quadratic(rng, shape, condition=5.0)
    mix = ref.gaussian(rng, (6, 4))
    problem = lo.Objective(
        lambda x: float(np.sum(fun(x)) + 0.5 * np.sum((x.mean(axis=0) - mix) ** 2)),
        lambda x: grad(x) + (x.mean(axis=0) - mix) / 3,
        shape=shape,
    )
    x0 = ref.orthonormal(rng, shape)
    for memory in (2, 20):
        rows, result = recorded(lo.directions.LBFGS(memory), problem, x0, tol=1e-8)
        assert result.success
        assert type(result.fun) is float
        assert lbfgs_error(rows, memory)[0] <= 1e-8


# -- conjugate gradients --------------------------------------------------------------------------


def beta_of(psi, old, f):
    """max(0, min(HS, DY)), and which of the three it is."""
    y = [a - b for a, b in zip(psi, old, strict=True)]
    change = -dot(f, y)
    if not change > 0:
        return 0.0, "none"
    stiefel, yuan = dot(psi, y) / change, dot(psi, psi) / change
    beta = max(0.0, min(stiefel, yuan))
    return beta, "zero" if beta == 0.0 else "HS" if stiefel <= yuan else "DY"


def cg_error(rows, beta_of=beta_of):
    """The largest angle between recorded and naive directions, the kinds of beta, the lengths' error."""
    f, kinds, angle, length_error, length = None, [], 0.0, 0.0, 1.0
    for old, row in zip([None, *rows], rows, strict=False):
        if row.first or row.restart:
            assert row.is_field
            f, length = row.psi, 1.0
            continue
        beta, kind = beta_of(row.psi, old.psi, f)
        kinds.append(kind)
        # f falls along -F, by <-F, y> over the last step, of length step * length * ||F||.
        last, f = f, [g + beta * a for g, a in zip(row.psi, f, strict=True)]
        slope = dot(row.psi, f)
        assert slope > 0
        change = dot(last, old.psi) - dot(last, row.psi)
        curvature = change / (row.step * length * dot(last, last))
        length = slope / (curvature * dot(f, f))
        if not length > 0:
            length = 0.1 * np.sqrt(row.x[0].shape[-1]) / np.sqrt(dot(row.psi, row.psi))
        expected = [length * a for a in f]
        gap = [a - b for a, b in zip(row.f, expected, strict=True)]
        norm = np.sqrt(dot(f, f))
        scale = np.sqrt(dot(row.f, row.f)) / norm
        tilt = [a / scale - b for a, b in zip(row.f, f, strict=True)]
        angle = max(angle, np.sqrt(dot(tilt, tilt)) / norm)
        length_error = max(length_error, np.sqrt(dot(gap, gap) / dot(expected, expected)))
        f = [a / length for a in row.f]  # the recorded one, so that errors do not add up
    return angle, kinds, length_error


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (7, 1)])
def test_conjugate_gradients_are_the_hybrid_formula(rng, shape, dtype):
    problem = problem_of(rng, shape, dtype)
    x0 = ref.orthonormal(rng, shape, dtype)
    direction = lo.directions.ConjugateGradient()
    rows, result = recorded(direction, problem, x0, options={"curvature": 0.4}, tol=1e-8)
    assert result.success
    assert rows[0].is_field
    angle, kinds, length_error = cg_error(rows)
    assert len(kinds) == result.nit - 1 > 5
    assert angle <= 1e-9
    assert length_error <= 1e-7  # a quotient of differences


def test_every_branch_of_the_formula_is_taken(rng):
    """HS, DY and 0 along runs; and either formula alone, or a transported F, does not agree."""
    seen, apart = set(), {"HS": 0.0, "DY": 0.0}

    def only(kind):
        def formula(psi, old, f):
            y = [a - b for a, b in zip(psi, old, strict=True)]
            return dot(psi, y if kind == "HS" else psi) / -dot(f, y), kind

        return formula

    for seed in range(3):
        generator = np.random.default_rng(seed)
        problem = problem_of(generator, (8, 5), condition=100.0)
        x0 = ref.orthonormal(generator, (8, 5))
        rows, _ = recorded(lo.directions.ConjugateGradient(), problem, x0, tol=1e-8)
        angle, kinds, _ = cg_error(rows)
        assert angle <= 1e-9
        seen |= set(kinds)
        for kind in apart:
            apart[kind] = max(apart[kind], naive_gap(rows, only(kind)))
        assert naive_gap(rows, beta_of) <= 1e-9
        assert naive_gap(rows, beta_of, transported=True) > 1e-3
    assert seen >= {"HS", "DY", "zero"}
    assert min(apart.values()) > 1e-3


def naive_gap(rows, formula, transported=False):
    """How far recorded directions are from psi_+ + beta F for the recorded F; of unit vectors."""
    worst, last = 0.0, None
    for old, row in zip([None, *rows], rows, strict=False):
        if not row.first and not row.restart:
            f = [a / old.length for a in old.f]
            if transported:
                f = [a - x @ sym(H(x) @ a) for a, x in zip(f, row.x, strict=True)]
            beta = formula(row.psi, old.psi, f)[0]
            new = [g + beta * a for g, a in zip(row.psi, f, strict=True)]
            unit = [a / np.sqrt(dot(new, new)) for a in new]
            given = [a / np.sqrt(dot(row.f, row.f)) for a in row.f]
            gap = [a - b for a, b in zip(unit, given, strict=True)]
            worst = max(worst, np.sqrt(dot(gap, gap)))
        last = row
    assert last is not None
    return worst


def test_conjugate_gradients_start_afresh(rng):
    xs, gradients = curved(rng, (8, 4), 30, concave={9, 10})
    # Steps along -F are a search's; here the formulas alone matter, for any points.
    rows = fed(lo.directions.ConjugateGradient(), xs, gradients, restarts={5, 17, 18})
    assert [k for k, row in enumerate(rows) if row.is_field] == [0, 5, 17, 18]
    for k in (0, 5, 17, 18):
        np.testing.assert_array_equal(rows[k].f[0], rows[k].psi[0])
    assert min(inner(row.psi[0], row.f[0]) for row in rows) > 0
    assert cg_error(rows[:18])[0] <= 1e-9


@pytest.mark.parametrize("curvature", [1e-5, 1.0, 300.0])
def test_the_length_is_exact_for_one_curvature(rng, curvature):
    """f with H = c I: the first trial of the second direction is the minimum itself."""
    target = ref.gaussian(rng, (12,))
    problem = lo.Objective(
        lambda x: 0.5 * curvature * np.sum((x - target) ** 2),
        lambda x: curvature * (x - target),
        shape=(12,),
        constraint=lo.Euclidean(),
    )
    result = lo.minimize(problem, target + 3.0, lo.landing_cg(), tol=1e-10)
    assert result.success
    assert result.nit == 2
    assert result.trace["step"][2] == 1.0
    np.testing.assert_allclose(result.x, target, atol=1e-9)


def test_conjugate_gradients_in_every_library(arrays, rng):
    for shape, dtype in [((6, 6), "float64"), ((9, 4), "complex128"), ((4, 9), "float64")]:
        x0 = ref.orthonormal(rng, shape, dtype)
        plain = problem_of(rng, shape, dtype)
        problem = lo.Objective(arrays.wrap(plain.fun), arrays.wrap(plain.grad), shape=shape)
        budget = lo.MaxIterations(15)
        direction = lo.directions.ConjugateGradient()
        rows, result = recorded(direction, problem, arrays.to(x0), stop=budget)
        assert len(rows) == 15
        assert cg_error(rows)[0] <= 1e-8
        arrays.host(result.x)


def test_conjugate_gradients_on_products_and_stacks(rng):
    problem, x0 = product_problem(rng)
    direction = lo.directions.ConjugateGradient()
    rows, result = recorded(direction, problem, x0, tol=1e-6)
    assert result.success
    assert cg_error(rows)[0] <= 1e-9
    shape = (3, 6, 4)
    stack = problem_of(rng, shape, condition=5.0)
    x0 = ref.orthonormal(rng, shape)
    result = lo.minimize(stack, x0, lo.landing_cg(), tol=1e-8)
    assert result.success
    for i in range(3):
        single = lo.minimize(one_of(stack, x0, i), x0[i], lo.landing_cg(), tol=1e-8)
        assert result.feasible_fun[i] == pytest.approx(single.feasible_fun, rel=1e-9)


# -- Newton ---------------------------------------------------------------------------------------


def smooth(rng, shape, dtype="float64", condition=5.0):
    """f = -Re <T, X> + Re <X, A X> / 20 + Re <U, X>^4 / 4, with hessp; nondegenerate optima."""
    n, p = shape
    t = ref.orthonormal(rng, (n, p), dtype) * np.geomspace(1.0, condition, p).astype(dtype)
    t = t @ ref.orthonormal(rng, (p, p), dtype)
    a = ref.gaussian(rng, (n, n), dtype)
    a = a @ H(a) / n
    u = ref.gaussian(rng, shape, dtype) / n

    def fun(x):
        return float(-inner(t, x) + 0.05 * inner(x, a @ x) + 0.25 * inner(u, x) ** 4)

    def grad(x):
        return -t + 0.1 * (a @ x) + inner(u, x) ** 3 * u

    def hessp(x, v):
        return 0.1 * (a @ v) + 3 * inner(u, x) ** 2 * inner(u, v) * u

    return lo.Objective(fun, grad, shape=shape, hessp=hessp)


def tangent_basis(x):
    """An orthonormal basis, in the real inner product, of {Z: sym(X^H Z) = 0}."""
    n, p = x.shape
    units = np.eye(n * p).reshape(-1, n, p).astype(x.dtype)
    units = [*units, *(1j * units)] if np.iscomplexobj(x) else list(units)
    normal = np.array([real(sym(H(x) @ u)) for u in units]).T  # of the coordinates of Z
    _, s, vh = np.linalg.svd(normal)
    rank = int(np.sum(s > 1e-9))
    return [sum(c * u for c, u in zip(row, units, strict=True)) for row in vh[rank:]]


def dense_hessian(problem, x, phi):
    """The Riemannian Hessian in a basis, entry by entry, and the basis."""
    basis = tangent_basis(x)
    images = [problem.hessp(x, v) - v @ phi for v in basis]
    return np.array([[inner(u, w) for w in images] for u in basis]), basis


def near_optimum(problem, x0, size, rng):
    """A point of the manifold a little off the optimum that a run from x0 finds."""
    best = lo.minimize(problem, x0, lo.landing_lbfgs(), tol=1e-10).feasible_x
    return ref.polar(best + size * ref.gaussian(rng, x0.shape, x0.dtype))


TIGHT = lo.directions.Newton(switch=1e9, forcing=1e-9, stagnation=0.0)


def dense_newton(problem, row, curved=True):
    """The tangent F with H[F] = psi, by a dense solve."""
    x, psi = row.x[0], row.psi[0]
    phi = sym(H(x) @ problem.grad(x))
    matrix, basis = dense_hessian(problem, x, phi if curved else 0.0 * phi)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(matrix)[0] > 0
    coordinates = np.linalg.solve(matrix, [inner(v, psi) for v in basis])
    return sum(c * v for c, v in zip(coordinates, basis, strict=True))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (6, 1)])
def test_newton_solves_the_tangent_equation(rng, shape, dtype):
    problem = smooth(rng, shape, dtype)
    best = ref.orthonormal(rng, shape, dtype)
    for size in (3e-2, 1e-3):
        x0 = near_optimum(problem, best, size, rng)
        rows, _ = recorded(TIGHT, problem, x0, stop=lo.MaxIterations(1))
        assert relative(rows[0].f[0], dense_newton(problem, rows[0])) <= 1e-7
        # The control: without the curvature of the manifold it is another direction.
        assert not shape[1] > 1 or relative(rows[0].f[0], flat(problem, rows[0])) > 1e-2


def flat(problem, row):
    """The same without -V Phi, where that can be solved."""
    x, psi = row.x[0], row.psi[0]
    matrix, basis = dense_hessian(problem, x, 0.0 * sym(H(x) @ psi))
    coordinates = np.linalg.lstsq(matrix, [inner(v, psi) for v in basis], rcond=None)[0]
    return sum(c * v for c, v in zip(coordinates, basis, strict=True))


def test_newton_solves_the_tangent_equation_beside_the_manifold(rng):
    """The normal part of psi, of the size of the distance, is no part of the equation."""
    problem = smooth(rng, (7, 3))
    x0 = near_optimum(problem, ref.orthonormal(rng, (7, 3)), 3e-2, rng)
    recipe = lo.directions.Newton(switch=1e9, forcing=1e-6, stagnation=0.0)
    rows, result = recorded(recipe, problem, x0, tol=1e-9)
    assert result.success
    for row in rows:
        assert row.nhev <= 2 * (7 * 3 - 6)  # twice the dimension
        expected = dense_newton(problem, row)
        assert relative(row.f[0], expected) <= 1e-2


def test_newton_converges_quadratically(rng):
    """The number of digits doubles."""
    orders, steps = [], []
    for _ in range(3):
        problem = smooth(rng, (8, 3))
        x0 = near_optimum(problem, ref.orthonormal(rng, (8, 3)), 0.1, rng)
        recipe = lo.directions.Newton(switch=1e9, forcing=1e-4, stagnation=0.0, max_inner=40)
        rows, result = recorded(recipe, problem, x0, tol=1e-12)
        assert result.success
        norms = [row.norm for row in rows] + [result.gradient_norm]
        logs = np.log(norms)
        for a, b, c in zip(logs, logs[1:], logs[2:]):
            if np.exp(c) > 1e-12 and b < a - 2:
                orders.append((c - b) / (b - a))
        steps.append(result.nit)
        # L-BFGS from there is superlinear at best.
        assert lo.minimize(problem, x0, lo.landing_lbfgs(), tol=1e-12).nit > 2 * result.nit
    assert max(orders) > 1.6, orders
    assert max(steps) <= 8, steps


def naive_newton(problem, row, rough, first, recipe, largest):
    """Truncated conjugate gradients: (solution or None, products, largest curvature, why)."""
    x, psi = row.x[0], row.psi[0]
    phi = sym(H(x) @ problem.grad(x))

    def project(z):
        return z - x @ sym(H(x) @ z)

    def hessian(v):
        return project(problem.hessp(x, v) - v @ phi)

    target = row.norm * min(recipe.forcing, np.sqrt(row.norm / first))
    r, d, total, solution, before = project(psi), project(rough), 0.0, None, 1.0
    for j in range(1, recipe.max_inner + 1):
        h = hessian(d)
        curvature = inner(d, h) / inner(d, d)
        if curvature <= 1e-13 * largest:
            return solution, j, largest, "negative curvature"
        largest = max(largest, curvature)
        alpha = inner(r, d) / inner(d, h)
        gain = alpha * inner(r, d)
        solution = alpha * d if solution is None else solution + alpha * d
        r = r - alpha * h
        total += gain
        if np.linalg.norm(r) <= target:
            return solution, j, largest, "residual"
        if gain * j <= recipe.stagnation * total:
            return solution, j, largest, "stagnation"
        # From where the first direction led, by the book.
        d = r if j == 1 else r + d * inner(r, r) / before
        before = inner(r, r)
    return solution, recipe.max_inner, largest, "max_inner"


def newton_rows(problem, x0, recipe, **keywords):
    """Rows, with the naive solution, product count and reason of each."""
    rows, result = recorded(recipe, problem, x0, **keywords)
    largest, out = 0.0, []
    for row, known in zip(rows, memories(rows, recipe.memory), strict=True):
        if row.norm > recipe.switch * rows[0].norm:
            out.append((row, None, 0, "L-BFGS"))
            continue
        rough = two_loop(row.psi, *known)[0] if known else row.psi[0]
        solution, count, largest, why = naive_newton(
            problem, row, rough, rows[0].norm, recipe, largest
        )
        out.append((row, rough if solution is None else solution, count, why))
    return out, result


@pytest.mark.parametrize(
    "recipe",
    [
        lo.directions.Newton(),
        lo.directions.Newton(memory=2, switch=0.5, forcing=0.1, stagnation=0.05),
        lo.directions.Newton(switch=0.9, forcing=1e-3, stagnation=0.0, max_inner=7),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_newton_truncates_by_the_book(rng, recipe, dtype):
    reasons, checked = set(), 0
    for seed in range(8):
        generator = np.random.default_rng(seed)
        problem = smooth(generator, (9, 4), dtype, condition=10.0)
        x0 = ref.orthonormal(generator, (9, 4), dtype)
        rows, result = newton_rows(problem, x0, recipe, tol=1e-7)
        assert result.success
        assert sum(row.nhev for row, *_ in rows) == result.nhev
        for row, expected, count, why in rows:
            reasons.add(why)
            if why == "L-BFGS":
                assert row.nhev == 0
            elif np.linalg.norm(sym(H(row.x[0]) @ row.psi[0])) <= 1e-7 * row.norm:
                # Conjugacy is lost over many products, and with it the last digits.
                assert abs(row.nhev - count) <= (0 if count < 12 else 2)
                checked += 1
                if row.nhev == count:
                    assert relative(row.f[0], expected) <= 1e-5
    assert checked > 1
    assert "residual" in reasons or recipe.forcing < 0.1
    assert "L-BFGS" in reasons
    assert ("stagnation" in reasons) is (recipe.stagnation > 0.0)
    assert ("max_inner" in reasons) is (recipe.max_inner == 7)


def test_a_singular_hessian_is_not_over_solved():
    """PCA is constant along X Q: few products a direction; the control asks for far more."""
    counts = {}
    for name, recipe in {
        "default": lo.directions.Newton(),
        "tight": lo.directions.Newton(stagnation=0.0, forcing=1e-6, max_inner=60),
    }.items():
        products, gradients = [], 0
        for seed in range(3):
            problem = lo.problems.PCA.random(60, 6, rng=seed)
            x0 = lo.stiefel.random(60, 6, rng=seed)
            rows, result = recorded(recipe, problem, x0, tol=1e-9)
            assert result.success
            assert result.nhev == sum(row.nhev for row in rows)
            products += [row.nhev for row in rows]
            gradients += result.njev
        counts[name] = sum(products)
        if name == "default":
            assert max(products) <= 25
            assert sum(products) + gradients < 400
    assert counts["tight"] > 2 * counts["default"]


@pytest.mark.parametrize("with_pairs", [False, True])
def test_negative_curvature_falls_back_to_lbfgs(rng, with_pairs):
    """Where the first direction curves down: the L-BFGS direction, or the field, is taken."""
    plain = smooth(rng, (7, 3))
    x0 = ref.orthonormal(rng, (7, 3))
    if not with_pairs:  # near the maximum of f
        x0 = near_optimum(plain, x0, 1e-3, rng)
    sign = 1.0 if with_pairs else -1.0
    problem = lo.Objective(
        lambda x: sign * plain.fun(x),
        lambda x: sign * plain.grad(x),
        shape=(7, 3),
        hessp=lambda x, v: -1e3 * v,
    )
    recipe = lo.directions.Newton(switch=0.9 if with_pairs else 1.0)
    rows, result = newton_rows(problem, x0, recipe, stop=lo.MaxIterations(12))
    tried = [k for k, (row, *_) in enumerate(rows) if row.nhev > 0]
    assert tried
    assert (0 in tried) is not with_pairs
    plain_rows = [row for row, *_ in rows]
    for k, known in enumerate(memories(plain_rows, 8)):
        row = plain_rows[k]
        assert row.nhev == (k in tried)
        expected = two_loop(row.psi, *known)[0] if known else row.psi[0]
        assert relative(row.f[0], expected) <= 1e-8
    assert result.fun < problem.fun(x0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_newton_without_hessian_products(rng, shape, dtype):
    """Differences of gradients: the same direction to 1e-6, each a gradient that is counted."""
    tall = (max(shape), min(shape))
    plain = smooth(rng, tall, dtype)
    turn = H if shape[0] < shape[1] else lambda a: a
    calls = SimpleNamespace(n=0)
    buffer = np.empty(shape, dtype)

    def grad(x):  # the same memory every time
        calls.n += 1
        buffer[...] = turn(plain.grad(turn(x)))
        return buffer

    def fun(x):
        return plain.fun(turn(x))

    x0 = turn(near_optimum(plain, ref.orthonormal(rng, tall, dtype), 3e-2, rng)).copy()
    recipe = lo.directions.Newton(switch=1e9, forcing=1e-2, stagnation=0.0)
    exact = lo.Objective(
        fun, grad, shape=shape, hessp=lambda x, v: turn(plain.hessp(turn(x), turn(v)))
    )
    differences = lo.Objective(fun, grad, shape=shape)
    rows, first = recorded(recipe, exact, x0, stop=lo.MaxIterations(1))
    calls.n = 0
    others, second = recorded(recipe, differences, x0, stop=lo.MaxIterations(1))
    assert calls.n == second.njev
    assert second.nhev == 0
    assert first.nhev == rows[0].nhev == others[0].njev > 3
    assert second.njev == second.nfev + others[0].njev
    size = np.linalg.norm(rows[0].f[0])
    assert np.linalg.norm(rows[0].f[0] - others[0].f[0]) <= 1e-6 * size
    whole = lo.minimize(differences, x0, method_with(lo.directions.Newton()), tol=1e-9)
    assert whole.success
    both = lo.Objective(value_and_gradient=lambda x: (fun(x), grad(x)), shape=shape)
    calls.n = 0
    result = lo.minimize(both, x0, lo.landing_newton(), tol=1e-7, record=lo.Every(10**6))
    assert result.success
    assert result.nfev == result.njev


def test_newton_in_every_library(arrays, rng):
    for shape, dtype in [((6, 6), "float64"), ((8, 3), "complex128")]:
        plain = smooth(rng, shape, dtype)
        x0 = ref.orthonormal(rng, shape, dtype)
        problem = lo.Objective(
            lambda x, f=plain.fun: f(arrays.host(x)),
            arrays.wrap(plain.grad),
            shape=shape,
            hessp=arrays.wrap(plain.hessp),
        )
        numpy = lo.minimize(plain, x0, lo.landing_newton(), tol=1e-9)
        result = lo.minimize(problem, arrays.to(x0), lo.landing_newton(), tol=1e-9)
        assert result.success
        assert numpy.nhev > 0
        assert abs(result.nhev - numpy.nhev) <= 0.2 * numpy.nhev + 5
        assert float(result.feasible_fun) == pytest.approx(numpy.feasible_fun, rel=1e-9)
        arrays.host(result.x)


def test_newton_on_stacks(rng):
    """Separable: the final values are those of each alone."""
    parts = [smooth(rng, (7, 3)) for _ in range(3)]
    x0 = ref.orthonormal(rng, (3, 7, 3))
    stack = lo.Objective(
        lambda x: np.array([f.fun(a) for f, a in zip(parts, x, strict=True)]),
        lambda x: np.stack([f.grad(a) for f, a in zip(parts, x, strict=True)]),
        shape=(3, 7, 3),
        hessp=lambda x, v: np.stack([f.hessp(a, b) for f, a, b in zip(parts, x, v, strict=True)]),
    )
    for problem in (stack, lo.Objective(stack.fun, stack.grad, shape=(3, 7, 3))):
        result = lo.minimize(problem, x0, lo.landing_newton(), tol=1e-8)
        assert result.success
        assert (result.nhev > 0) is (problem is stack)
        for i in range(3):
            single = lo.minimize(parts[i], x0[i], lo.landing_newton(), tol=1e-8)
            assert result.feasible_fun[i] == pytest.approx(single.feasible_fun, rel=1e-8)


@pytest.mark.parametrize("switch", [0.1, 1.0])
def test_newton_on_products(rng, switch):
    """Orthogonal and free blocks; a field that the search still reads is not written to."""
    plain = smooth(rng, (7, 3))
    target = ref.gaussian(rng, (4,))

    def fun(x):
        return plain.fun(x["W"]) + float(
            np.sum(np.cosh(x["b"] - target)) + 0.3 * x["W"][0, 0] * x["b"][0]
        )

    def grad(x):
        g = {"W": plain.grad(x["W"]), "b": np.sinh(x["b"] - target)}
        g["W"][0, 0] += 0.3 * x["b"][0]
        g["b"][0] += 0.3 * x["W"][0, 0]
        return g

    def hessp(x, v):
        h = {"W": plain.hessp(x["W"], v["W"]), "b": np.cosh(x["b"] - target) * v["b"]}
        h["W"][0, 0] += 0.3 * v["b"][0]
        h["b"][0] += 0.3 * v["W"][0, 0]
        return h

    options = dict(
        shape={"W": (7, 3), "b": (4,)}, constraint={"W": lo.Stiefel(), "b": lo.Euclidean()}
    )
    x0 = {"W": ref.orthonormal(rng, (7, 3)), "b": ref.gaussian(rng, (4,))}
    for problem in (
        lo.Objective(fun, grad, hessp=hessp, **options),
        lo.Objective(fun, grad, **options),
    ):
        _, result = recorded(lo.directions.Newton(switch=switch), problem, x0, tol=1e-9)
        assert result.success, result.message
        assert result.nit < 60
        assert (result.nhev > 0) is (problem.hessp is not None)


# -- Hessian products of the user's ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    {
        "zero": lambda x, v: np.zeros_like(v),
        "minus": lambda x, v: -v,
        "not symmetric": lambda x, v: v + 3 * v[::-1],
        "nan": lambda x, v: np.full_like(v, np.nan),
        "inf": lambda x, v: np.full_like(v, np.inf),
        "huge": lambda x, v: 1e200 * v,
        "tiny": lambda x, v: 1e-200 * v,
        "noise": lambda x, v: np.random.default_rng(int(1e6 * abs(v[0, 0]))).standard_normal(
            v.shape
        ),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("switch", [0.1, 1.0])
def test_a_wrong_hessian_product_slows_a_run_and_nothing_else(rng, wrong, switch):
    plain = smooth(rng, (7, 3))
    problem = lo.Objective(plain.fun, plain.grad, shape=(7, 3), hessp=wrong[1])
    x0 = ref.orthonormal(rng, (7, 3))
    with np.errstate(all="ignore"):
        result = lo.minimize(problem, x0, method_with(lo.directions.Newton(switch=switch)))
    assert result.status in (lo.Status.CONVERGED, lo.Status.LINE_SEARCH, lo.Status.MAX_ITERATIONS)
    assert np.isfinite(result.fun)
    assert result.feasible_fun <= plain.fun(x0)
    slack = 3e-12 * abs(plain.fun(x0))
    assert np.max(np.diff(result.trace["feasible_fun"])) <= slack


def test_a_hessian_product_in_any_memory(rng):
    """A shared buffer, a read-only, Fortran-ordered or non-contiguous array: the same run."""
    plain = smooth(rng, (7, 3))
    x0 = ref.orthonormal(rng, (7, 3))
    buffer, large = np.empty((7, 3)), np.zeros((14, 6))
    kept = []

    def shared(x, v):
        buffer[...] = plain.hessp(x, v)
        return buffer

    def readonly(x, v):
        h = plain.hessp(x, v)
        h.flags.writeable = False
        return h

    def strided(x, v):
        large[::2, ::2] = plain.hessp(x, v)
        return large[::2, ::2]

    def hoarding(x, v):
        assert not x.flags.writeable and not v.flags.writeable
        h = plain.hessp(x, v)
        kept.append((h, h.copy()))
        return h

    expected = lo.minimize(plain, x0, lo.landing_newton(), tol=1e-10)
    assert expected.nhev > 5
    fortran = lambda x, v: np.asfortranarray(plain.hessp(x, v))  # noqa: E731
    for hessp in (shared, readonly, strided, hoarding, fortran):
        problem = lo.Objective(plain.fun, plain.grad, shape=(7, 3), hessp=hessp)
        result = lo.minimize(problem, x0, lo.landing_newton(), tol=1e-10)
        assert (result.nit, result.nhev) == (expected.nit, expected.nhev)
        np.testing.assert_allclose(result.x, expected.x, atol=1e-9)
    for given, copy in kept:
        np.testing.assert_array_equal(given, copy)


def test_a_hessian_product_that_is_its_argument(rng):
    """f = ||x - T||^2 / 2: hessp returns v, on both kinds of block."""
    target = {"W": ref.gaussian(rng, (6, 3)), "b": ref.gaussian(rng, (4,))}
    problem = lo.Objective(
        lambda x: 0.5 * float(sum(np.sum((x[k] - target[k]) ** 2) for k in target)),
        lambda x: {k: x[k] - target[k] for k in target},
        shape={"W": (6, 3), "b": (4,)},
        constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
        hessp=lambda x, v: v,
    )
    x0 = {"W": ref.orthonormal(rng, (6, 3)), "b": ref.gaussian(rng, (4,))}
    for switch in (0.1, 1.0):
        _, result = recorded(lo.directions.Newton(switch=switch), problem, x0, tol=1e-9)
        assert result.success, result.message
        assert result.nhev > 0
        np.testing.assert_allclose(result.feasible_x["W"], ref.polar(target["W"]), atol=1e-7)
        np.testing.assert_allclose(result.x["b"], target["b"], atol=1e-7)


@pytest.mark.parametrize(
    ("returned", "kind", "told"),
    [
        (lambda x, v: v[:2], ValueError, r"Hessian product has shape \(2, 3\)"),
        (lambda x, v: v.T, ValueError, r"Hessian product has shape \(3, 7\)"),
        (lambda x, v: v.astype(np.float32), TypeError, "Hessian product has dtype float32"),
        (lambda x, v: v.astype(complex), TypeError, "Hessian product has dtype complex128"),
        (lambda x, v: None, TypeError, "Hessian product must be an array, got NoneType"),
        (lambda x, v: v.tolist(), TypeError, "Hessian product must be an array, got list"),
    ],
)
def test_a_hessian_product_of_the_wrong_kind(rng, returned, kind, told):
    plain = smooth(rng, (7, 3))
    problem = lo.Objective(plain.fun, plain.grad, shape=(7, 3), hessp=returned)
    with pytest.raises(kind, match=told):
        lo.minimize(problem, ref.orthonormal(rng, (7, 3)), lo.landing_newton())


def test_exceptions_of_hessp_come_out_unchanged(rng):
    class Mine(Exception):
        pass

    def broken(x, v):
        raise Mine

    plain = smooth(rng, (7, 3))
    problem = lo.Objective(plain.fun, plain.grad, shape=(7, 3), hessp=broken)
    with pytest.raises(Mine):
        lo.minimize(problem, ref.orthonormal(rng, (7, 3)), lo.landing_newton())


# -- blocks of unlike scales ----------------------------------------------------------------------


def test_blocks_of_unlike_scales_do_not_hold_each_other_up(rng):
    """Scales 1e4 apart: less than three times the gradients of the well-scaled product."""
    one, two = problem_of(rng, (12, 4)), problem_of(rng, (10, 3))
    x0 = {"a": ref.orthonormal(rng, (12, 4)), "b": ref.orthonormal(rng, (10, 3))}

    def product(scale):
        return lo.Objective(
            lambda x: float(one.fun(x["a"]) + scale * two.fun(x["b"])),
            lambda x: {"a": one.grad(x["a"]), "b": scale * two.grad(x["b"])},
            shape={"a": (12, 4), "b": (10, 3)},
        )

    def solve(scale):
        """Gradients until each block has its own gradient down to 1e-6 of the first one."""
        firsts = {}

        def small(row):
            g = product(scale).grad(row.x)
            norms = {k: np.linalg.norm(g[k] - row.x[k] @ sym(H(row.x[k]) @ g[k])) for k in g}
            firsts.setdefault("norms", norms)
            return all(norms[k] <= 1e-6 * firsts["norms"][k] for k in norms)

        result = lo.minimize(
            product(scale), x0, lo.landing_lbfgs(), stop=lo.MaxIterations(3000), callback=small
        )
        assert result.status is lo.Status.CALLBACK, result.message
        return result.njev

    plain = solve(1.0)
    for scale in (1e4, 1e-4):
        assert solve(scale) < 3 * plain


# -- recipes --------------------------------------------------------------------------------------


def test_the_recipes_are_values():
    made = [
        lambda: lo.landing_lbfgs(5),
        lambda: lo.landing_cg(),
        lambda: lo.landing_newton(5),
        lambda: lo.directions.LBFGS(5),
        lambda: lo.directions.ConjugateGradient(),
        lambda: lo.directions.Newton(memory=5, switch=0.3),
        lambda: lo.searches.Wolfe(curvature=0.5),
    ]
    for i, make in enumerate(made):
        recipe = make()
        assert recipe == make() and hash(recipe) == hash(make())
        assert pickle.loads(pickle.dumps(recipe)) == recipe
        for j, other in enumerate(made):
            assert (recipe == other()) is (i == j)
        for each in dataclasses.fields(recipe):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(recipe, each.name, None)
    assert lo.landing_lbfgs() != lo.landing_lbfgs(9)
    assert lo.landing_lbfgs() == lo.landing_lbfgs(8)
    assert lo.landing_newton() != lo.landing_newton(9)
    names = [lo.landing_lbfgs(5).name, lo.landing_cg().name, lo.landing_newton().name]
    assert names == ["landing_lbfgs", "landing_cg", "landing_newton"]


def test_a_repr_of_the_recipes_makes_them_again():
    space = {**vars(lo.directions), **vars(lo.searches), **vars(lo.fields), **vars(lo.moves)}
    space |= {**vars(lo.estimators), "Method": lo.Method}
    for recipe in (lo.landing_lbfgs(5), lo.landing_cg(), lo.landing_newton(3)):
        assert eval(repr(recipe), space) == recipe


def test_a_recipe_serves_many_runs(rng):
    """State lives in runs: a second solve with the same recipe is the same solve."""
    problem = smooth(rng, (7, 3))
    x0 = ref.orthonormal(rng, (7, 3))
    for method in (lo.landing_lbfgs(), lo.landing_cg(), lo.landing_newton()):
        runs = [lo.minimize(problem, x0, method, tol=1e-9) for _ in range(2)]
        np.testing.assert_array_equal(runs[0].x, runs[1].x)
        assert runs[0].njev == runs[1].njev


@pytest.mark.parametrize("memory", [0, -1, 2.5, True, "8", None, np.nan, np.array([3, 4])])
def test_memories_that_are_refused(memory):
    for make in (
        lo.landing_lbfgs, lo.landing_newton, lo.directions.LBFGS, lo.directions.Newton,
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match="memory, the number of pairs, must be an integer >= 1"
        ):
            make(memory)


def test_a_memory_of_numpys_is_taken():
    assert lo.landing_lbfgs(np.int64(3)) == lo.landing_lbfgs(3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"switch": 0.0}, "switch must lie strictly between 0 and inf, got 0.0"),
        ({"switch": float("nan")}, "switch"),
        ({"forcing": 1.0}, "forcing must lie strictly between 0 and 1, got 1.0"),
        ({"forcing": -0.1}, "forcing"),
        ({"stagnation": 1.0}, r"stagnation must lie in \[0, 1\), got 1.0"),
        ({"stagnation": -0.1}, "stagnation"),
        ({"max_inner": 0}, "max_inner must be at least 1, got 0"),
    ],
)
def test_parameters_of_newton_that_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        lo.directions.Newton(**options)
