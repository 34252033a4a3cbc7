"""``landingopt bench solvers --large``: solves are solved, steps are the same steps, shares sum to 1."""

from __future__ import annotations

import csv
import gc
import importlib.util
import math
import re
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt import cli
from landingopt.bench import (
    large,
    large_fixed,
    large_plot,
    large_problems,
    large_shares,
    large_tables,
    large_torch,
    runs,
)
from landingopt.bench.step_calls import recording

NAMES = ("procrustes-8", "pca-12x3", "procrustes-3x6x6")


def installed(name):
    return not large_torch.missing(name)


# -- the problems ---------------------------------------------------------------------------------


class TestProblems:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_start_and_the_optimum(self, name):
        found = large_problems.make(name)
        assert found.shape == found.problem.shape
        assert large_problems.distance(found.x0) < 1e-14
        assert (found.gap(found.x0), found.relative(found.x0)) == pytest.approx((1.0, 1.0))
        signs = np.linalg.slogdet(found.x0)[0].astype(int) if name.startswith("proc") else None
        x, _ = found.problem.optimum(component=signs)
        assert abs(found.gap(x)) < 1e-12 and found.relative(x) < 1e-12
        assert found.gap(lo.stiefel.polar(x + 0.01)) > 1e-6
        assert found.gap(x * math.nan) == found.relative(x * math.nan) == math.inf

    def test_they_are_the_same_each_time(self):
        first, second = (large_problems.make("procrustes-8") for _ in range(2))
        assert np.array_equal(first.x0, second.x0) and first.best == second.best

    @pytest.mark.parametrize("name", NAMES)
    def test_the_curvature_is_that_of_the_hessian(self, name):
        found = large_problems.make(name)
        v = np.random.default_rng(0).standard_normal(found.shape)
        for _ in range(300):
            v = found.problem.hessp(found.x0, v)
            size = np.linalg.norm(v, axis=(-2, -1))
            v /= np.max(size)
        assert np.max(size) == pytest.approx(found.curvature, rel=1e-3)

    def test_of_many_rows_the_data_is_kept(self, monkeypatch):
        monkeypatch.setattr(large_problems, "DATA_ROWS", 40)
        monkeypatch.setattr(large_problems, "SAMPLES", 10)
        found = large_problems.make("pca-50x3")
        assert found.problem.like.shape == (10, 50)
        x, fun = found.problem.optimum()
        assert found.best == pytest.approx(fun) and abs(found.gap(x)) < 1e-12

    def test_names(self):
        known = {*large_problems.SOLVES, *large_problems.FIXED}
        assert set(large_problems.TOLS) <= known
        assert {*large_problems.QUICK_SOLVES[:2], large_problems.QUICK_FIXED[0]} <= known
        for name in known:
            large_problems._parts(name)
        assert large_problems.chosen(["pca-*", "procrustes-9"])[-1] == "procrustes-9"
        assert large_problems.chosen(["procrustes-1000*"]) == ["procrustes-1000"]

    @pytest.mark.parametrize(
        "name", ["procrustes", "procrustes-8x4", "pca-5x5", "pca-2x9x3", "ica-5", "pca-0x0", ""]
    )
    def test_what_is_no_name(self, name):
        with pytest.raises(ValueError, match="is no large problem: write procrustes-100"):
            large_problems.make(name)

    def test_patterns_that_match_nothing(self):
        with pytest.raises(
            ValueError, match=r"no problem matches 'ica\*'; there are procrustes-100"
        ):
            large_problems.chosen(["ica*"])


# -- whole solves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_solves_end_at_the_optimum(name):
    lines = []
    settings = large.Settings(problems=[name], repeats=2, timeout=20.0, budget=0.5)
    rows = large.run(settings, lines.append)
    assert [row.method for row in rows] == list(large.METHODS)
    for row in rows:
        assert row.solved and row.tol == 1e-6 and row.relative <= 1.001e-6
        assert abs(row.gap) < 1e-8 and row.distance <= 1.001e-8
        assert 0 < row.seconds_low <= row.seconds <= row.seconds_high
        assert row.seconds_iteration == row.seconds / row.iterations and row.iterations > 3
        assert row.ratio == row.seconds / rows[0].seconds
        parts = [row.products, row.factorisations, row.elementwise, row.python]
        if row.method in large.OURS:
            assert sum(parts) == pytest.approx(1.0) and all(0.0 <= part <= 1.0 for part in parts)
            assert (row.factorisations > 0.0) == (row.method == "QR") and row.products > 0.0
        else:
            assert all(math.isnan(part) for part in parts)
    assert len(lines) == 1 and lines[0].startswith(name)


def test_what_is_not_solved_is_not_compared():
    settings = large.Settings(problems=["procrustes-8"], methods=["landing", "pymanopt-sd"])
    hopeless = replace(settings, tol=1e-12, timeout=0.2, repeats=1)
    ours, theirs = large.run(hopeless)
    assert ours.solved and ours.tol == 1e-12
    assert (
        not theirs.solved and math.isnan(theirs.ratio) and theirs.status in ("GIVEN UP", "STALLED")
    )
    assert "not solved" in large_tables.solves_table([ours, theirs]).splitlines()[-1]
    claim = large_tables.bounds([ours, theirs], [])[1]
    assert claim.holds is None and "no problem that both have solved" in str(claim)


def test_the_judge_does_not_believe_a_solver(monkeypatch):
    """Also of pymanopt: what comes back is asked for less until it is there, or given up."""
    asked = []
    honest = large.solve

    def careless(name, problem, tol, timeout):
        asked.append(tol)
        return replace(honest(name, problem, 1e-2, timeout), status="CONVERGED")

    monkeypatch.setattr(large, "solve", careless)
    (row,) = large.run(large.Settings(problems=["procrustes-8"], methods=["landing"], repeats=1))
    assert not row.solved and row.relative > 1e-6
    assert asked == pytest.approx([1e-6, 0.3e-6, 0.09e-6])


def test_a_stack_of_one():
    settings = large.Settings(problems=["procrustes-1x6x6"], repeats=1, budget=0.1)
    assert all(row.solved for row in large.run(settings))


def test_frozen_memory_is_given_back():
    before = gc.get_freeze_count()
    with runs.frozen():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0


# -- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "products"),
    # Of X A and R A^T, or of K X of n^2 p, and the landing's own.
    [("procrustes-8", 2 + 3), ("pca-12x3", 12 / 3 + 4), ("procrustes-3x6x6", 2 + 3)],
)
def test_all_products_of_an_iteration_are_counted(name, products):
    found = large_problems.make(name)
    method = lo.landing(step=0.1 * found.step, lam=1.0)  # short: the safe step needs no norm
    assert large_shares.shares(method, found, 6, 1).count == products


def test_shares_where_the_clock_is_odd():
    parts = {"products": 3.0, "factorisations": 1.0, "elementwise": 2.0}
    found = large_shares.split(5.0, parts, 1.0)
    assert found.python == 0.0 and found.products == 0.5
    assert large_shares.split(12.0, parts, 1.0).python == 0.5


def test_kinds_of_calls():
    with recording() as tape:
        a, b = tape.counting(np.eye(3) + 1.0), tape.counting(np.ones((3, 3)))
        tape.running = True
        np.dot(a, b), a @ b, np.linalg.qr(a), np.linalg.solve(a, b)
        a + b, np.vdot(a, b), np.linalg.norm(a), a.sum()
    kinds = [large_shares.kind(call) for call in tape.made]
    assert kinds == ["products"] * 2 + ["factorisations"] * 2 + ["elementwise"] * 4


def test_what_is_kept_of_a_recording_is_bounded(monkeypatch):
    found = large_problems.make("procrustes-8")
    monkeypatch.setattr(large_shares, "KEPT", 4 * large_shares.ARRAYS * found.x0.nbytes)
    assert large_shares._Whole(lo.landing(), found, 20).iterations == 4


# -- fixed steps ----------------------------------------------------------------------------------


def steps(name, methods=large_fixed.METHODS, **changes):
    settings = large_fixed.Settings(problems=[name], methods=methods, repeats=2, **changes)
    return large_fixed.run(replace(settings, multiplications=1.0))


@pytest.mark.parametrize("name", NAMES)
def test_fixed_steps_of_ours(name):
    rows = steps(name, large_fixed.OURS)
    assert [row.method for row in rows] == list(large_fixed.OURS)
    for row in rows:
        assert row.steps == large_fixed.FEWEST and row.rounds == 2 and row.ratio == 1.0
        assert 0.0 < row.gap < 1.0 and row.distance < 0.5
        assert 0.0 < row.gradient_seconds < row.seconds


def test_so_many_steps_are_made_and_timed():
    found = large_problems.make("procrustes-8")
    x, seconds = (run("POGO", found, 7, 1) for run in (large_fixed._end, large_fixed._seconds))
    wanted = lo.minimize(
        found.problem, found.x0, lo.pogo(found.step), stop=lo.MaxIterations(7), rng=0
    )
    assert np.array_equal(x, wanted.x) and seconds > 0.0


@pytest.mark.skipif(not installed("torch-landing"), reason="torch is not installed")
@pytest.mark.parametrize("name", [*NAMES, "pca-50x3"])
def test_the_gradient_in_torch_is_the_same(name, monkeypatch):
    monkeypatch.setattr(large_problems, "DATA_ROWS", 40)
    monkeypatch.setattr(large_problems, "SAMPLES", 10)
    found = large_problems.make(name)
    gradient = large_torch.gradient(found, 1)()
    assert np.allclose(gradient, found.problem.grad(found.x0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", list(large_torch.OPTIMIZERS))
@pytest.mark.parametrize("name", NAMES)
def test_steps_in_torch_are_the_same(name, method):
    if not installed(method):
        pytest.skip(large_torch.missing(method))
    found = large_problems.make(name)
    if not large_torch.fits(method, found):
        pytest.skip("square matrices only")
    ours, theirs = (
        large_fixed._end(each, found, 30, 1) for each in (large_torch.OPTIMIZERS[method][2], method)
    )
    exact = method in ("torch-landing", "torch-QR")
    # POGO's tangent term and the authors' safe step differ off the manifold.
    assert np.max(np.abs(ours - theirs)) < (1e-12 if exact else 0.3)
    assert found.gap(theirs) == pytest.approx(found.gap(ours), rel=1e-8 if exact else 0.3)


@pytest.mark.skipif(not installed("torch-landing"), reason="torch is not installed")
def test_torch_keeps_its_threads_and_the_start_its_values():
    import torch

    found, before = large_problems.make("procrustes-8"), torch.get_num_threads()
    x0 = found.x0.copy()
    large_fixed._end("torch-landing", found, 3, before + 1)
    assert torch.get_num_threads() == before and np.array_equal(found.x0, x0)


def test_what_is_not_installed_is_left_out(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "pogo") else real(name)
    )
    rows = steps("procrustes-8")
    assert [row.method for row in rows] == list(large_fixed.OURS)
    notes = large_tables.notes(large_fixed.METHODS).splitlines()
    assert "torch-landing is left out, there is no torch: pip install torch" in notes
    assert "torch-POGO is left out, there is no torch, pogo: pip install torch pogo-torch" in notes
    bounds = large_tables.bounds([], rows)
    assert all(bound.holds is None for bound in bounds) and "left out" in bounds[-1].figure


def test_another_package_called_landing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "landing", types.ModuleType("landing"))
    assert "there is no landing.LandingSGD" in large_torch.missing("torch-LandingSGD")


# -- tables and claims ----------------------------------------------------------------------------

SOLVE = large.Solve(
    "procrustes-8", "landing", 1e-6, 1, True, "CONVERGED", 1e-7, 1e-12, 1e-15, 10, 1.0, 0.9, 1.1,
    1.0, 0.1, 0.5, 0.0, 0.3, 0.2, 9.0, 5,
)  # fmt: skip
STEP = large_fixed.Step(
    large_problems.AUTHORS, "torch-POGO", 1, 1e-3, 9, 0.2, 0.19, 0.21, 0.05, "POGO", 2.5, 2.4, 2.6,
    0.1, 1e-8, 5,
)  # fmt: skip


def test_claims():
    def words(solves, steps):
        return [str(bound).split()[0] for bound in large_tables.bounds(solves, steps)]

    slow = replace(SOLVE, method="pymanopt-cg", seconds=3.0, ratio=3.0)
    torch = [replace(STEP, method=name) for name in large_torch.LANDINGS]
    assert words([SOLVE, slow], torch) == ["PASS"] * 5
    fast = replace(slow, ratio=0.9)
    assert words([SOLVE, slow, fast], torch)[1] == "SHORT"
    assert words([replace(SOLVE, solved=False)], [])[:2] == ["FAIL", "not"]
    torch = [replace(row, ratio=1.5) for row in torch]
    assert words([SOLVE], torch)[2:] == ["PASS", "SHORT", "SHORT"]
    assert words([SOLVE], [replace(STEP, problem="procrustes-8")])[-1] == "not"


def test_tables(tmp_path):
    theirs = replace(
        SOLVE, method="pymanopt-cg", rounds=1, products=math.nan, count=math.nan, solved=False,
        ratio=math.nan, status="TIME",
    )  # fmt: skip
    text = large_tables.solves_table([SOLVE, theirs, replace(SOLVE, problem="pca-9x3")])
    lines = text.splitlines()
    assert lines[2] == "procrustes-8, to 1e-6" and lines[6] == "pca-9x3, to 1e-6"
    assert lines[3].split()[:5] == ["landing", "1000", "10%", "1.00", "10"]
    assert lines[3].split()[-4:] == ["50%", "0%", "30%", "20%"]
    assert lines[4].endswith("not solved: TIME") and len({line.find("1000") for line in lines}) == 2
    (row,) = large_tables.steps_table([STEP]).splitlines()[3:]
    assert row.split() == [
        "torch-POGO", "200", "5%", "50.0", "2.50x", "2.40", "-", "2.60", "1.0e-01", "1.0e-08",
        "POGO",
    ]  # fmt: skip
    large_tables.write_csv([SOLVE, STEP], tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        solve, step = csv.DictReader(file)
    assert solve["kind"] == "solve" and solve["steps"] == "" and float(solve["python"]) == 0.2
    assert step["kind"] == "step" and step["ours"] == "POGO" and step["tol"] == ""


def test_figure_without_the_landing():
    figure = large_plot.plot([replace(SOLVE, method="QR")], [STEP])
    assert [axes.get_title() for axes in figure.axes] == [
        "a whole solve",
        "a constant step, with its gradient",
    ]


# -- the command ----------------------------------------------------------------------------------


def invoked(*arguments):
    return CliRunner().invoke(cli.app, ["bench", "solvers", "--large", *map(str, arguments)])


def test_command(tmp_path):
    table, figure = tmp_path / "a.csv", tmp_path / "a.png"
    names = "landing,pymanopt-cg,landing-step,torch-landing"
    result = invoked(
        "--quick", "--problems", ",".join(NAMES), "--methods", names, "--repeats", 1, "--csv",
        table, "--plot", figure,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 BLAS thread" in result.stdout and "procrustes-3x6x6, fixed steps" in result.stderr
    assert "PASS          ours solve every problem: 3 of 3 runs" in result.stdout
    assert ("torch-landing is left out" in result.stdout) == (not installed("torch-landing"))
    tables = re.split(r"torch-\S+ is left out|PASS", result.stdout)[0]
    assert max(map(len, tables.splitlines())) <= 125
    assert figure.stat().st_size > 5000
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    solves = [(r["problem"], r["method"]) for r in rows if r["kind"] == "solve"]
    assert solves == [(name, method) for name in NAMES for method in ("landing", "pymanopt-cg")]
    assert sum(r["kind"] == "step" for r in rows) == 3 * (1 + installed("torch-landing"))
    assert all(float(r["seconds"]) > 0.0 and r["threads"] == "1" for r in rows)
    assert all(abs(float(r["gap"])) < 1e-8 for r in rows if r["kind"] == "solve")


def test_check_and_what_is_run_by_default(monkeypatch, tmp_path):
    seen = []

    def solved(settings, say):
        seen.append(settings)
        return [SOLVE]

    def stepped(settings, say):
        seen.append(settings)
        return [replace(STEP, ratio=1.5)]

    monkeypatch.setattr(large, "run", solved)
    monkeypatch.setattr(large_fixed, "run", stepped)
    monkeypatch.chdir(tmp_path)
    result = invoked("--check", "--plot", "none")
    assert result.exit_code == 1 and "SHORT         a step of POGO on" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bench_large.csv"]
    assert invoked("--quick", "--csv", "none", "--plot", "none", "--tol", "1e-3").exit_code == 0
    full, full_steps, quick, quick_steps = seen
    assert full.problems == large_problems.SOLVES and full_steps.problems == large_problems.FIXED
    assert (quick.tol, quick.repeats, quick.timeout) == (1e-3, 3, 3.0)
    assert quick_steps.problems == large_problems.QUICK_FIXED
    assert quick_steps.multiplications < full_steps.multiplications


def test_no_figure_of_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(large, "run", lambda settings, say: [replace(SOLVE, solved=False)])
    figure = tmp_path / "a.png"
    result = invoked("--methods", "landing", "--csv", "none", "--plot", figure)
    assert result.exit_code == 0 and "no figure: nothing was solved" in result.stderr
    assert not figure.exists() and "FAIL          ours solve every problem" in result.stdout


def test_without_torch_nothing_is_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    result = invoked("--methods", "torch-POGO", "--problems", "procrustes-4", "--plot", "none")
    assert result.exit_code == 2 and "nothing was run: torch-POGO is left out" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--problems", "nope"), "--problems: 'nope' is no large problem: write procrustes-100"),
        (("--problems", "ica-*"), "--problems: no problem matches 'ica-*'; there are procrustes-"),
        (("--problems", ","), "--problems names none"),
        (("--methods", "landing,nope"), "bench solvers --large runs landing, landing-lbfgs, QR"),
        (("--tol", "1e-6,1e-10"), "--tol must be one number with --large, got '1e-6,1e-10'"),
        (("--tol", "2"), "--tol must lie between 0 and 1, got 2"),
        (("--seeds", "2"), "--seeds is not for --large"),
        (("--csv", "missing/a.csv"), "which is missing"),
        (("--plot", "a.txt"), "suffix must be .png, .pdf or .svg"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = invoked("--quick", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_threads_are_for_large_problems():
    result = CliRunner().invoke(cli.app, ["bench", "solvers", "--threads", "2"])
    assert result.exit_code == 2 and "--threads is for --large" in result.stderr


def test_threads_that_cannot_be_set(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    result = invoked("--threads", "2")
    assert result.exit_code == 2 and "OPENBLAS_NUM_THREADS=2" in result.stderr


def test_unknown_options():
    result = invoked("--device", "cuda")
    assert result.exit_code == 2 and "No such option" in result.output
