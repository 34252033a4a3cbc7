"""``landingopt bench step``: counts are what a step does, ratios are to the bare products."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import math
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt import _blas, _xp
from landingopt.bench import step, step_plot, step_tables
from landingopt.bench.products import counted_products
from landingopt.bench.step_calls import Replay, _carried, recording
from landingopt.cli import app
from landingopt.moves import Moved

SHAPES = ((8, 8), (30, 4), (5, 6, 6), (5, 9, 3))


def task(shape):
    return step.Task(np, shape, "float64")


# -- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "products"), list(zip(SHAPES, (3, 4, 3, 4))))
def test_products_of_the_landing(shape, products):
    here = task(shape)
    counts = step.counted(here, step.recorded(here, here.methods()["landing"]))
    assert counts.products == products
    assert counts.calls >= products and counts.calls == int(counts.calls)


@pytest.mark.parametrize("name", step.METHODS)
@pytest.mark.parametrize("shape", [(8, 8), (30, 4)])
def test_every_product_of_the_kernels_is_counted(name, shape):
    """At least those that another counter sees; retractions make some beside the kernels."""
    here, totals = task(shape), []
    method = here.methods()[name]
    for steps in (2, 4):
        with counted_products() as total:
            here.drive(method, {steps + 1: lambda: None})
        totals.append(total[0])
    seen = (totals[1] - totals[0]) / 2 / step._work(shape)
    counts = step.counted(here, step.recorded(here, method))
    assert counts.products >= seen >= 2
    if name in ("landing", "POGO", "QR"):
        assert counts.products == seen


@dataclass(frozen=True)
class Extra:
    """The additive move with more array calls, of every kind."""

    calls: int

    def start(self, block):
        return ExtraRun(self.calls)


class ExtraRun:
    def __init__(self, calls):
        self.calls = calls

    def apply(self, form, eta, out, tol=None, limit=math.inf):
        x = form.moved(eta, out)
        if self.calls > 0:
            np.abs(x)
        if self.calls > 1:
            x *= 1.0
        if self.calls > 2:
            x.sum()
        if self.calls > 3:
            np.linalg.norm(x)
        if self.calls > 4:
            x[0, 0] = x[0, 0]  # two calls, neither a view: an entry is a number
        return Moved(x, float("inf"), None, True)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_every_further_call_is_counted(shape):
    here, found = task(shape), []
    for extra in range(6 if len(shape) == 2 else 5):
        search = lo.searches.OpenLoop(lo.steps.Constant(here.step))
        method = lo.Method(search, lo.fields.Field(), move=Extra(extra))
        found.append(step.counted(here, step.recorded(here, method)))
    more = [counts.calls - found[0].calls for counts in found]
    assert more == [0, 1, 2, 3, 4, 6][: len(found)]
    assert len({counts.views for counts in found}) == 1


def test_views_are_told_apart():
    with recording() as tape:
        x = tape.counting(np.arange(12.0).reshape(4, 3))
        tape.running = True
        x.T, x[1:], x.ravel(), x.reshape(-1)[::4]
        assert (tape.calls, tape.views) == (0, 5)
        x.T.ravel()  # this one copies
        assert (tape.calls, tape.views) == (1, 6)
        x.shape, x.dtype, len(x)
        assert (tape.calls, tape.views) == (1, 6)


def test_recording_leaves_nothing_behind():
    product, checked = _blas.product, lo.oracle.Oracle.checked
    here = task((6, 6))
    step.recorded(here, here.methods()["QR"])
    assert _xp.np is np and _blas.product is product
    assert lo.oracle.Oracle.checked is checked
    assert type(lo.minimize(lo.problems.Procrustes.random(4, rng=0), rng=0).x) is np.ndarray


# -- the replay -----------------------------------------------------------------------------------


class Enough(Exception):
    pass


def ends(method, x, g, steps, at=lambda k, y: None):
    """The point after so many steps; ``at(k, x)`` is called with the k-th gradient."""
    points = []

    def grad(y):
        points.append(y)
        at(len(points), y)
        if len(points) == steps + 1:
            raise Enough
        return g

    problem = lo.Objective(grad=grad, shape=x.shape, like=x)
    with pytest.raises(Enough):
        lo.minimize(problem, x, method, stop=lo.MaxIterations(99), record=lo.Every(10**9))
    return points


@pytest.mark.parametrize("name", step.METHODS)
@pytest.mark.parametrize("shape", [(8, 8), (30, 4)])
def test_the_replay_is_the_step(name, shape):
    """From another X: nothing but the calls leads to the right point, so that none is missing.

    The step is short, so that the numbers of the recording are those of the other X too.
    """
    here = task(shape)
    here.step *= 0.01
    method = here.methods()[name]
    with recording() as tape:

        def at(k, x):
            tape.running = k == 2

        begin, end = (x.plain for x in ends(method, here.x, here.g, 2, at)[1:])
    full, (other, third) = Replay(tape.made), (lo.stiefel.random(*shape, rng=i) for i in (5, 6))
    wanted = np.array(ends(method, other, here.g, 1)[1])

    def replayed(replay, x):
        begin[...], end[...] = x, 0.0
        made = replay()
        return end if np.shape(made) != shape or np.shares_memory(end, made) else made

    assert np.allclose(replayed(full, other), wanted, rtol=0, atol=1e-12)
    needed = 0
    for i, call in enumerate(
        tape.made
    ):  # the control: X^T X is the same of both, other products not
        if call.multiplications:
            replayed(full, third)  # else the buffers hold what is left out
            found = replayed(Replay(tape.made[:i] + tape.made[i + 1 :]), other)
            needed += not np.allclose(found, wanted, rtol=0, atol=1e-12)
    assert needed >= 2


def test_a_replay_begins_anew_each_time():
    """X, which two steps have led elsewhere, is set back."""
    here = task((8, 8))
    here.recorded = 2
    tape = step.recorded(here, here.methods()["landing"])
    replay = Replay(tape.made)
    once = np.array(replay(1))
    assert np.array_equal(replay(1), once) and np.array_equal(replay(5), once)
    for array in _carried(tape.made):  # the control
        assert array.shape == (8, 8)
        array[...] = -array
    assert not np.allclose(Replay(tape.made)(1), once)


@pytest.mark.parametrize("shape", [(8, 8), (30, 4)])
def test_a_replay_has_few_names(shape):
    """A large frame leaves no room on Python's stack: each call in it would fetch memory."""
    here = task(shape)
    replay = Replay(step.recorded(here, here.methods()["exponential"]).made)
    assert replay._run.__code__.co_nlocals < 40 < 20 * here.recorded


# -- times ----------------------------------------------------------------------------------------


class Machine:
    """A clock that products alone move, faster and slower from round to round."""

    def __init__(self):
        self.now, self.pace, self.read = 0.0, 1.0, 0

    def clock(self):
        self.read += 1
        return self.now

    def product(self):
        self.now += self.pace * 1e-3

    def timer(self, products):
        return step.timer(lambda: [self.product() for _ in range(products)], self.clock)


def test_ratios_are_those_of_a_round():
    """A method that does the products twice takes 2.0, however unlike the rounds are."""
    machine = Machine()
    bare, twice, other = machine.timer(3), machine.timer(6), machine.timer(4)

    def slower(steps):
        machine.pace *= 1.7
        return bare(steps)

    found = step.measure({"products": slower, "twice": twice, "other": other}, 7, 0.01)
    assert [len(times) for times in found.values()] == [7, 7, 7]
    assert max(found["products"]) > 10 * min(found["products"])
    for name, ratio in (("twice", 2.0), ("other", 4 / 3)):
        ratios = step.quartiles(step.paired(found[name], found["products"]))
        assert ratios == pytest.approx((ratio, ratio, ratio))


def test_long_steps_have_few_rounds_and_short_ones_fill_their_time():
    taken = []

    def long(steps):
        taken.append(steps)
        return 1.0

    found = step.measure({"products": lambda steps: 1e-4, "long": long}, 5, 0.01)
    assert len(found["products"]) == 5 and len(found["long"]) == step.FEW
    assert set(taken) == {1}
    assert step._filling(0.01, 1e-4) == 100 and step._filling(1.0, 1e-9) == step.MOST


def test_the_layer_is_what_array_calls_do_not_explain():
    here, name = task((8, 8)), "landing"
    found = {
        "products": [1.0, 2.0, 1.0],
        "written": [2.0, 4.0, 2.0],
        name: [3e-6, 9e-6, 4e-6],
        step._calls_of(name): [1e-6, 8e-6, 2e-6],
    }
    cell = step._cell(here, name, step.Counts(3, 12, 4), found, step.Settings())
    assert cell.layer_us == pytest.approx(2.0)
    assert cell.seconds == 4e-6 and cell.rounds == 3
    del found[step._calls_of(name)]
    assert math.isnan(step._cell(here, name, step.Counts(), found, step.Settings()).layer_us)


def test_another_library_is_timed_and_not_counted():
    here = step.Task(Namespace(**vars(np)), (6, 6), "float64")
    (cell,) = step._cells(here, ["landing"], step.Settings(repeats=1, budget=1e-4))
    assert cell.ratio > 0
    assert all(math.isnan(n) for n in (cell.products, cell.calls, cell.views, cell.layer_us))


def test_methods_that_take_too_long_are_left_out(monkeypatch):
    cost = {"landing": 1e-3, "QR": 1.9}

    def fake(here, names, settings):
        scale = step._work(here.shape) / 8**3
        times = {"products": [1e-3 * scale] * 3, "written": [1e-3 * scale] * 3}
        times |= {name: [cost[name] * scale] * 3 for name in names}
        return [step._cell(here, name, step.Counts(), times, settings) for name in names]

    monkeypatch.setattr(step, "_cells", fake)
    lines = []
    settings = step.Settings(shapes=((8, 8), (10, 10), (9, 2)), methods=("QR", "landing"))
    cells = step.run(settings, lines.append)
    assert [(cell.shape, cell.method) for cell in cells] == [
        ((8, 8), "landing"),
        ((8, 8), "QR"),
        ((10, 10), "landing"),
        ((9, 2), "landing"),
        ((9, 2), "QR"),
    ]
    assert "without QR" in lines[1] and "without" not in lines[0] + lines[2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_step_turns_the_columns_and_comes_back(shape, dtype):
    here = step.Task(np, shape, dtype)
    assert here.x.dtype == here.g.dtype == dtype
    seen = []
    method, turns = here.methods()["QR"], itertools.cycle([here.g, -here.g])
    problem = lo.Objective(
        grad=lambda x: (seen.append(np.array(x)), next(turns))[1], shape=shape, like=here.x
    )
    lo.minimize(problem, here.x, method, stop=lo.MaxIterations(3), record=lo.Every(9), rng=0)
    begin, there, back = seen[-3:]  # the second is of an observer's in single precision
    moved = np.linalg.norm(there - begin, axis=(-2, -1)).max() / math.sqrt(shape[-1])
    assert 0.5 * step.TURN < moved < 1.1 * step.TURN
    assert np.linalg.norm(back - begin) < 0.5 * np.linalg.norm(there - begin)


def test_the_bare_products_are_plain(monkeypatch):
    """Different operands, and as many as they should be."""
    for shape, count in zip(SHAPES, (3, 4, 3, 4)):
        here, seen = task(shape), []
        real = np.matmul

        def matmul(a, b, out, seen=seen, real=real):
            assert not np.shares_memory(a, b) and not np.shares_memory(a, out)
            seen.append(out.size * a.shape[-1])
            return real(a, b, out=out)

        with monkeypatch.context() as patch:
            patch.setattr(np, "matmul", matmul)
            here.bare()()
        assert sum(seen) == count * step._work(shape)


# -- the command ----------------------------------------------------------------------------------


def invoked(*arguments):
    return CliRunner().invoke(app, ["bench", "step", *arguments])


def test_command(tmp_path):
    table, figure = tmp_path / "step.csv", tmp_path / "step.png"
    files = ("--csv", str(table), "--plot", str(figure))
    result = invoked("--quick", "--shapes", "8x8,6x2", "--methods", "QR,landing", *files)
    assert result.exit_code == 0, result.output
    assert "/ products" in result.output and "1 BLAS thread" in result.output
    assert max(map(len, result.output.splitlines())) <= 110
    assert figure.stat().st_size > 5000
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["shape"], row["method"]) for row in rows] == [
        ("8x8", "landing"),
        ("8x8", "QR"),
        ("6x2", "landing"),
        ("6x2", "QR"),
    ]
    assert [float(row["products"]) for row in rows] == [3, 2, 4, 2]
    assert all(float(row["seconds"]) > 0 and float(row["calls"]) > 4 for row in rows)
    assert all(row["kind"] in ("square", "tall") and row["threads"] == "1" for row in rows)


def test_command_with_a_stack_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quiet = ("--csv", "none", "--plot", "none", "--dtype", "float32", "--repeats", "1")
    result = invoked("--quick", "--shapes", "3x4x4", "--methods", "landing", *quiet)
    assert result.exit_code == 0, result.output
    assert "3x4x4" in result.output and "float32" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "landing,newton"], "bench step runs landing, POGO, QR"),
        (["--methods", ","], "--methods names none"),
        (["--shapes", "8"], "'8' is no shape: write 40x40"),
        (["--shapes", "8xa"], "'8xa' is no shape"),
        (["--shapes", "0x0"], "'0x0' is no shape"),
        (["--shapes", "2x3x4x5"], "is no shape"),
        (["--shapes", "40x40,5x500"], "5x500 has more columns than rows"),
        (["--csv", "missing/step.csv"], "which is missing"),
        (["--plot", "step.txt"], "suffix must be"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = invoked("--quick", *arguments)
    assert result.exit_code == 2
    lines = result.output.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("landingopt: error: ") and message in lines[0]


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is here")
def test_cuda_without_cupy():
    result = invoked("--device", "cuda", "--quick")
    assert result.exit_code == 2
    assert "no CUDA device: CuPy is not installed; run with --device cpu" in result.output


def test_threads_that_cannot_be_set(monkeypatch):
    monkeypatch.setattr(step.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    with step.blas_threads(1):
        pass
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = invoked("--threads", "2")
    assert result.exit_code == 2 and "OPENBLAS_NUM_THREADS=2" in result.output


def test_default_shapes():
    full, cuda = step.shapes(), step.shapes(device="cuda")
    assert set(full) < set(cuda) and (8192, 8192) in cuda
    kinds = [step.kind(shape) for shape in cuda]
    assert kinds == sorted(kinds, key=step.KINDS.index)
    for found in (full, cuda):  # what is left out is expected from smaller shapes
        for kind in step.KINDS:
            works = [step._work(shape) for shape in found if step.kind(shape) == kind]
            assert len(works) == len(set(works))
    assert all(step.parsed(step.shown(shape)) == shape for shape in cuda)


def test_the_table_says_nothing_where_nothing_is_known():
    here = step.Task(np, (8, 8), "float64")
    times = {"products": [1e-6, 1e-6], "written": [2e-6, 2e-6], "QR": [2e-5, 3e-5]}
    cell = step._cell(here, "QR", step.Counts(), times, step.Settings(methods=("QR",)))
    line = step_tables.table([cell]).splitlines()[-1].split()
    assert line[:8] == ["8x8", "QR", "25.0", "1.00", "25.0", "22.5", "-", "27.5"]
    assert line[8:] == ["12.5", "-", "-", "-", "-"]
    assert len(step_plot.plot([cell]).axes) == 1


# -- the guard: what a step may cost --------------------------------------------------------------

# (array calls, views, products in units n p^2 or p^3); a change that needs more has to say so here.
ALLOWED = {
    ("landing", (8, 8)): (11, 1, 3.0),
    ("landing", (100, 100)): (15, 2, 3.0),
    ("landing", (200, 200)): (14, 2, 3.0),
    ("landing", (500, 5)): (20, 6, 4.0),
    ("landing", (500, 50)): (20, 4, 4.0),
    ("POGO", (8, 8)): (14, 5, 4.0),
    ("POGO", (500, 50)): (22, 13, 6.0),
}


@pytest.mark.parametrize(("name", "shape"), ALLOWED, ids=str)
def test_a_step_costs_no_more_than_it_did(name, shape):
    here = task(shape)
    counts = step.counted(here, step.recorded(here, here.methods()[name]))
    found = counts.calls, counts.views, counts.products
    assert all(a <= b for a, b in zip(found, ALLOWED[name, shape], strict=True)), found
