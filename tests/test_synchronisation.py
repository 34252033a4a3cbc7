"""What a run reads back from a device, counted on array_api_strict's second one.

Every way to a host number is watched: an array's truth, its conversion to a number or an index, its
transfer, and results whose size depends on the data. Data and steps stay where they are between
checkpoints; searches read packed numbers.
"""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

import landingopt as lo

strict = pytest.importorskip("array_api_strict")
DEVICE = strict.Device("device1")
NUMBERS = ("__bool__", "__float__", "__int__", "__index__", "__complex__")
SIZES = ("nonzero", "unique_values", "unique_counts", "unique_inverse", "unique_all")


@contextmanager
def counted():
    """A counter of reads; one entry for each way."""
    kind = strict._array_object.Array
    reads = Counter()
    before = {name: getattr(kind, name) for name in (*NUMBERS, "to_device")}
    index, sizes = kind.__getitem__, {name: getattr(strict, name) for name in SIZES}

    def watching(name):
        def watched(self, *args, **more):
            reads[name] += 1
            return before[name](self, *args, **more)

        return watched

    def indexed(self, key):
        """A mask: how many entries there are is known on the host first."""
        if isinstance(key, kind) and key.dtype == strict.bool:
            reads["mask"] += 1
        return index(self, key)

    def sizing(name):
        def sized(*args, **more):
            reads[name] += 1
            return sizes[name](*args, **more)

        return sized

    try:
        for name in before:
            setattr(kind, name, watching(name))
        kind.__getitem__ = indexed
        for name in SIZES:
            setattr(strict, name, sizing(name))
        yield reads
    finally:
        for name, method in before.items():
            setattr(kind, name, method)
        kind.__getitem__ = index
        for name, function in sizes.items():
            setattr(strict, name, function)


def on_device(values):
    return strict.asarray(np.asarray(values), device=DEVICE)


SHAPES = {
    "square": (6, 6), "tall": (9, 4), "wide": (4, 9), "stack": (5, 4, 4), "tall stack": (3, 7, 3),
}  # fmt: skip


def reads_per_step(method, shape, first=5, last=25):
    """Of each kind, a step: between two calls of the gradient."""
    target = on_device(np.random.default_rng(0).standard_normal(shape))
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1, like=target)
    seen = []

    def grad(x):
        seen.append(reads.copy())
        return x - target

    problem = lo.Objective(grad=grad, shape=shape, like=target)
    with counted() as reads:
        lo.minimize(
            problem, x0, method, stop=lo.MaxIterations(last + 1), record=lo.Every(10**6), rng=0
        )
    start = len(seen) - 1 - last
    difference = seen[start + last] - seen[start + first]
    return {name: count / (last - first) for name, count in difference.items()}


METHODS = {
    "constant": lo.landing(step=0.05),
    "constant, tight tube": lo.landing(step=0.2, eps=0.3),
    "decreasing": lo.landing(step=lo.steps.Decay(0.1, power=0.5)),
    "schedule": lo.landing(step=lambda k: 0.1 / (1 + k)),
    "Euclidean": lo.landing(step=0.05, tangent=lo.fields.Euclidean()),
    "near tangent": lo.landing(step=0.05, tangent=lo.fields.NearTangent()),
    "momentum": lo.landing(
        step=0.02, base=lo.estimators.Momentum(0.9, base=lo.estimators.Tangent())
    ),
    "POGO": lo.pogo(0.05),
    "POGO, Adam": lo.pogo(0.01, base=lo.estimators.Adam()),
    "QR": lo.riemannian(lo.retractions.QR(), step=0.05),
    "CholeskyQR": lo.riemannian(lo.retractions.CholeskyQR(), step=0.05),
    "projection": lo.riemannian(lo.retractions.Polar("svd"), step=0.05),
    "Cayley": lo.riemannian(lo.retractions.Cayley(), step=0.05),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_nothing_is_read_between_checkpoints(method, shape):
    assert reads_per_step(method, shape) == {}


# Those that look at their passes, or at a norm, to know how many there are: reads a step at most.
LOOKING = {
    "projection by products": (lo.retractions.Polar(), 2.0),
    "exponential": (lo.retractions.Exponential(), 2.0),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", LOOKING)
def test_retractions_that_look_read_twice_at_most(name, shape):
    retraction, most = LOOKING[name]
    reads = reads_per_step(lo.riemannian(retraction, step=0.05), shape)
    assert 0 < sum(reads.values()) <= most


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("__float__", lambda x: float(strict.sum(x))),
        ("mask", lambda x: x[x > 0.0]),
        ("nonzero", lambda x: strict.nonzero(x)),
    ],
)
def test_the_counter_sees_a_read(name, look):
    """The control: a step rule that looks at a number."""

    class Looking:
        def start(self, context):
            return self

        def size(self, k, point):
            look(point.x[0])
            return 0.01

    assert reads_per_step(lo.landing(step=Looking()), (6, 6))[name] == 1.0


SEARCHES = {
    # reads a trial: (next to the solution, where steps are short, and on the way to it)
    "landing": (lo.landing(), 1.0, 4.5),
    "Armijo": (lo.riemannian(search=lo.searches.LineSearch(memory=0.0)), 1.0, 4.0),
    "L-BFGS": (lo.landing_lbfgs(), 4.0, 9.0),
    "conjugate gradient": (lo.landing_cg(), 3.0, 8.5),
}


@pytest.mark.parametrize("shape", [(12, 12), (20, 8), (4, 9, 9), (3, 14, 6)], ids=str)
@pytest.mark.parametrize("name", SEARCHES)
def test_what_searches_read(name, shape):
    """A search has to know f: one packed transfer for all numbers of a trial, whatever the size.

    Where X - eta F is far from the manifold, the passes back to it are looked at, one by one.
    """
    method, near, far = SEARCHES[name]
    rng = np.random.default_rng(0)
    a, b = (
        on_device(rng.standard_normal((*shape[:-2], rows, 15))) for rows in (shape[-1], shape[-2])
    )
    problem = lo.problems.Procrustes(a, b)

    def run(x0, steps):
        with counted() as reads:
            result = lo.minimize(
                problem, x0, method, stop=lo.MaxIterations(steps), record=lo.Every(10**6)
            )
        return sum(reads.values()), result.nfev, result.x

    def between(x0, first, last):
        before, after = run(x0, first), run(x0, last)
        return (after[0] - before[0]) / (after[1] - before[1])

    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1, like=a)
    found = between(x0, 0, 25)
    close = lo.minimize(problem, x0, method, tol=1e-3).x
    short = between(close, 3, 12)
    print(f"{name} {shape}: {found:.2f} reads a trial, {short:.2f} close to the solution")
    assert found <= far
    assert short <= near + 0.01


def test_a_direction_that_leaves_the_tangent_space_is_looked_at(monkeypatch):
    """What was expected of a planned trial is held against what is read; a wrong guess costs a trial."""
    from landingopt.searches.reading import Trial

    rng = np.random.default_rng(0)
    a, b = (on_device(rng.standard_normal((rows, 15))) for rows in (6, 12))
    problem = lo.problems.Procrustes(a, b)
    x0 = lo.stiefel.random(12, 6, rng=1, like=a)
    honest, verdicts = Trial._held, []
    expect = Trial.expect

    def too_little(self, *arguments):
        expect(self, *arguments)
        self._expected *= 1e-3

    def held(self, first):
        verdicts.append(honest(self, first) if first else None)
        return verdicts[-1] in (None, True)

    fair = lo.minimize(problem, x0, lo.landing_lbfgs(), tol=1e-9)
    monkeypatch.setattr(Trial, "expect", too_little)
    monkeypatch.setattr(Trial, "_held", held)
    result = lo.minimize(problem, x0, lo.landing_lbfgs(), tol=1e-9)
    assert False in verdicts and result.success and result.distance <= 1e-8
    assert result.feasible_fun == pytest.approx(fair.feasible_fun, rel=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_matrix_that_is_not_finite_leaves_the_others_alone(bad):
    rng = np.random.default_rng(0)
    target = rng.standard_normal((4, 7, 3))
    broken = target.copy()
    broken[2, 0, 0] = bad

    def run(t):
        there = on_device(t)
        problem = lo.Objective(
            lambda x: -strict.sum(x * there, axis=(-2, -1)),
            lambda x: -1.0 * there,
            shape=t.shape,
            like=there,
        )
        x0 = lo.stiefel.random(7, 3, stack=(4,), rng=1, like=there)
        return lo.minimize(problem, x0, tol=1e-8, on_failure="return")

    runs = [run(target), run(broken)]
    fine = [0, 1, 3]
    assert all(lo.Status(code).success for code in runs[1].status[fine])
    np.testing.assert_allclose(runs[1].feasible_fun[fine], runs[0].feasible_fun[fine], rtol=1e-9)
    assert not lo.Status(runs[1].status[2]).success
