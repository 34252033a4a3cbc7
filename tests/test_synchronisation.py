"""What a run reads back from a device, counted on array_api_strict's second one.

Every way to a host number is watched: an array's truth, its conversion to a number or an index, and its
transfer. Data and steps stay where they are between checkpoints; searches read packed numbers.
"""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

import landingopt as lo

strict = pytest.importorskip("array_api_strict")
DEVICE = strict.Device("device1")
NUMBERS = ("__bool__", "__float__", "__int__", "__index__", "__complex__")


@contextmanager
def counted():
    """A counter of reads; one entry for each way."""
    kind = strict._array_object.Array
    reads = Counter()
    before = {name: getattr(kind, name) for name in (*NUMBERS, "to_device")}

    def watching(name):
        def watched(self, *args, **more):
            reads[name] += 1
            return before[name](self, *args, **more)

        return watched

    try:
        for name in before:
            setattr(kind, name, watching(name))
        yield reads
    finally:
        for name, method in before.items():
            setattr(kind, name, method)


def on_device(values):
    return strict.asarray(np.asarray(values), device=DEVICE)


SHAPES = {"square": (6, 6), "tall": (9, 4), "stack": (5, 4, 4), "tall stack": (3, 7, 3)}


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


def test_the_counter_sees_a_read():
    """The control: a step rule that looks at a number."""

    class Looking:
        def start(self, context):
            return self

        def size(self, k, point):
            float(strict.sum(point.x[0]))
            return 0.01

    assert reads_per_step(lo.landing(step=Looking()), (6, 6)) == {"__float__": 1.0}


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_what_searches_read(shape):
    """A search has to know f; it reads numbers a few times a trial, whatever the size."""
    rng = np.random.default_rng(0)
    a, b = (
        on_device(rng.standard_normal((shape[1], 12))),
        on_device(rng.standard_normal((shape[0], 12))),
    )
    problem = lo.problems.Procrustes(a, b)
    x0 = lo.stiefel.random(*shape, rng=1, like=a)
    totals = []
    for steps in (5, 25):
        with counted() as reads:
            result = lo.minimize(
                problem, x0, lo.landing(), stop=lo.MaxIterations(steps), record=lo.Every(10**6)
            )
        totals.append((sum(reads.values()), result.nfev))
    (before, first), (after, last) = totals
    print(f"{(after - before) / (last - first):.1f} reads a trial")
    assert (after - before) / (last - first) <= 20
