"""``landingopt bench solvers``: what it counts, judges, sums up and prints. No test looks at seconds."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt import _blas, cli
from landingopt._numpy import NumpyMatrix
from landingopt.bench import battery, profile, runs, solvers, summary, tables
from landingopt.bench.products import counted_products
from landingopt.bench.summary import Record
from landingopt.observe.clock import Clock

OURS = ("landing", "landing-lbfgs", "landing-cg", "landing-newton")


def record(problem="a", seed=0, method="landing", tol=1e-6, seconds=1.0, **known):
    """A run; solved unless it says otherwise."""
    times = {"seconds_ideal": 0.5 * seconds, "seconds_outside": seconds + 1.0}
    known = {"solved": True, **times, "repeats": 5, **known}
    if not known["solved"]:
        seconds = known["seconds_ideal"] = known["seconds_outside"] = math.nan
        known = {"claimed": False, "status": "STALLED", **known}
    return Record(problem, seed, method, tol, method in OURS, seconds=seconds, **known)


def ratios(*records):
    return summary.problem_ratios(records, 1e-6)


class TestRatios:
    def test_the_fastest_that_solves_is_the_opponent_seed_by_seed(self):
        (row,) = ratios(
            record(seconds=1.0),
            record(method="pymanopt-cg", seconds=4.0),
            record(method="pymanopt-tr", solved=False),
            record(seed=1, seconds=1.0),
            record(seed=1, method="pymanopt-cg", seconds=20.0),
            record(seed=1, method="pymanopt-tr", seconds=9.0),
        )
        assert row.ratios["landing"] == pytest.approx(6.0)  # of 4 and 9
        assert row.ideal["landing"] == pytest.approx(3.0)
        assert row.opponents == ["pymanopt-cg", "pymanopt-tr"]
        assert (row.compared, row.seeds) == (2, 2)

    def test_the_ideal_cache_may_change_the_opponent(self):
        (row,) = ratios(
            record(seconds=1.0),
            record(method="pymanopt-cg", seconds=4.0, seconds_ideal=3.9),
            record(method="pymanopt-tr", seconds=5.0, seconds_ideal=2.0),
        )
        assert (row.ratios["landing"], row.ideal["landing"]) == pytest.approx((4.0, 2.0))

    def test_whole_calls(self):
        rows = ratios(record(seconds=1.0), record(method="pymanopt-cg", seconds=4.0))
        assert summary.mean_ratio(rows, "landing", "whole") == pytest.approx(5.0 / 2.0)
        assert summary.mean_ratio(rows, None, "ideal") == pytest.approx(2.0)

    def test_recommended_is_the_best_by_the_mean_over_seeds(self):
        (row,) = ratios(
            record(seconds=1.0),
            record(method="landing-cg", seconds=2.0),
            record(method="pymanopt-cg", seconds=8.0),
            record(seed=1, seconds=8.0),
            record(seed=1, method="landing-cg", seconds=2.0),
            record(seed=1, method="pymanopt-cg", seconds=8.0),
        )
        assert row.best == "landing-cg"
        assert row.best_ratio == pytest.approx(4.0)

    def test_a_run_that_only_pymanopt_solves_counts_as_zero(self):
        (row,) = ratios(
            record(solved=False),
            record(method="landing-cg", seconds=2.0),
            record(method="pymanopt-cg", seconds=8.0),
        )
        assert row.ratios == {"landing": 0.0, "landing-cg": pytest.approx(4.0)}
        assert summary.mean_ratio([row], "landing") == 0.0
        assert summary.mean_ratio([row], None) == pytest.approx(4.0)

    def test_without_an_opponent_a_problem_is_left_out_of_the_mean_and_the_table_says_so(self):
        records = [
            record(seconds=1.0),
            record(method="pymanopt-cg", seconds=4.0),
            record("hard", seconds=1.0),
            record("hard", method="pymanopt-cg", solved=False),
        ]
        rows = ratios(*records)
        assert math.isnan(rows[1].ratios["landing"]) and rows[1].best is None
        assert summary.mean_ratio(rows, "landing") == pytest.approx(4.0)
        line = next(x for x in tables.ratios_table(records, 1e-6).splitlines() if "hard" in x)
        assert "none solved" in line and "0 of 1 seeds compared" in line

    def test_other_tolerances_do_not_mix(self):
        records = [record(), record(method="pymanopt-cg", seconds=2.0), record(tol=1e-10)]
        assert math.isnan(summary.problem_ratios(records, 1e-10)[0].ratios["landing"])

    def test_geometric_mean(self):
        assert summary.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
        assert summary.geometric_mean([2.0, 0.0]) == 0.0
        assert math.isnan(summary.geometric_mean([]))

    def test_counts_are_compared_where_both_have_solved(self):
        records = [
            record(method="landing-lbfgs", njev=50),
            record(method="pymanopt-cg", njev=100),
            record(seed=1, method="landing-lbfgs", njev=1, solved=False),
            record(seed=1, method="pymanopt-cg", njev=100),
            record(seed=2, method="landing-lbfgs", njev=1),
            record(seed=2, method="pymanopt-cg", njev=100, solved=False),
        ]
        assert summary.count_ratio(records, "landing-lbfgs", "pymanopt-cg", 1e-6) == 0.5


def good_records():
    """Runs of which every bound holds."""
    made = []
    for problem in ("procrustes-40", "pca-500x5"):
        for tol in (1e-6, 1e-10, 1e-12):
            made += [record(problem, method=m, tol=tol, seconds=1.0, njev=8, nfev=8) for m in OURS]
        for name in ("pymanopt-cg", "pymanopt-tr"):
            made.append(record(problem, method=name, seconds=5.0, njev=10, nfev=30))
    return made


def changed(records, which, **values):
    return [replace(r, **values) if which(r) else r for r in records]


class TestBounds:
    def verdicts(self, records):
        return {bound.claim: bound.holds for bound in summary.bounds(records, (1e-6, 1e-10))}

    def test_all_hold(self):
        verdicts = self.verdicts(good_records())
        assert len(verdicts) == 9 and all(value is True for value in verdicts.values())

    @pytest.mark.parametrize(
        ("claim", "which", "values"),
        [
            ("every run at 1e-6", lambda r: r.method == "landing-cg" and r.tol == 1e-6,
             {"solved": False}),
            ("every run at 1e-10", lambda r: r.ours and r.tol == 1e-10, {"solved": False}),
            ("landing against", lambda r: r.method == "landing", {"seconds": 2.0}),
            ("best of ours", lambda r: r.ours, {"seconds": 1.5}),
            ("never slower", lambda r: r.ours and r.problem == "pca-500x5", {"seconds": 5.5}),
            ("gradients of landing-lbfgs", lambda r: r.method == "landing-lbfgs", {"njev": 9}),
            ("no f apart", lambda r: r.method == "landing-lbfgs", {"nfev": 9}),
            ("landing-newton against", lambda r: r.method == "pymanopt-tr", {"seconds": 3.9}),
            ("reach 1e-12", lambda r: r.tol == 1e-12 and r.method == "landing", {"solved": False}),
        ],
    )  # fmt: skip
    def test_each_can_fail(self, claim, which, values):
        verdicts = self.verdicts(changed(good_records(), which, **values))
        (found,) = [holds for name, holds in verdicts.items() if claim in name]
        assert found is False

    def test_what_was_not_run_is_not_measured(self):
        records = [r for r in good_records() if r.method == "landing" and r.tol == 1e-6]
        found = [value for value in self.verdicts(records).values() if value is not None]
        assert found == [True]  # solved at 1e-6
        assert "not measured" in str(summary.bounds(records, (1e-6,))[1])


class TestProfile:
    records = (
        record(seconds=1.0),
        record(method="pymanopt-cg", seconds=4.0),
        record(seed=1, seconds=6.0),
        record(seed=1, method="pymanopt-cg", seconds=3.0),
        record(seed=2, solved=False),
        record(seed=2, method="pymanopt-cg", solved=False),
        record(seed=3, seconds=2.0),
        record(seed=3, method="pymanopt-cg", solved=False),
    )

    def test_fractions_of_all_runs_the_unsolved_included(self):
        found = summary.performance_profile(self.records, 1e-6)
        assert found.runs == 4
        assert [found.fraction("landing", t) for t in (1.0, 2.0, 100.0)] == [0.5, 0.75, 0.75]
        assert [found.fraction("pymanopt-cg", t) for t in (1.0, 3.9, 4.0)] == [0.25, 0.25, 0.5]

    def test_figure(self, tmp_path):
        figure = profile.plot_profile(self.records, (1e-6, 1e-10), tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        left, right = figure.axes
        assert left.get_title() == "solved to 1e-6, 4 runs"
        assert right.get_title() == "solved to 1e-10, 0 runs"
        assert [line.get_label() for line in left.lines] == ["landing", "pymanopt-cg"]
        assert left.lines[0].get_ydata()[-1] == 0.75
        assert left.get_xscale() == "log" and left.get_xlim()[0] == 1.0


class TestJudge:
    problem = lo.problems.Procrustes.random(6, rng=0)
    x0 = lo.stiefel.random(6, rng=1)

    def test_the_optimum_is_solved(self):
        x, _ = self.problem.optimum()
        assert runs.judge(self.problem, x, self.x0).solved(1e-10)

    def test_the_start_has_1(self):
        found = runs.judge(self.problem, self.x0.copy(), self.x0)
        assert found.relative == pytest.approx(1.0) and not found.solved(1e-6)

    def test_wrong_results_are_not_solved(self):
        x, _ = self.problem.optimum()
        moved = lo.stiefel.polar(x + 1e-4 * np.ones((6, 6)))
        assert runs.judge(self.problem, moved, self.x0).relative > 1e-6
        for wrong in (moved, 1.001 * x, x * math.nan, x * math.inf):
            assert not runs.judge(self.problem, wrong, self.x0).solved(1e-6)

    def test_the_slack_is_small(self):
        assert runs.Verdict(1.0009e-6, 0.0).solved(1e-6)
        assert not runs.Verdict(1.0011e-6, 0.0).solved(1e-6)
        assert not runs.Verdict(math.nan, 0.0).solved(1e-6)

    def test_a_solver_that_claims_too_much_is_seen(self, monkeypatch):
        honest = runs.solve
        monkeypatch.setattr(
            runs, "solve", lambda chosen, problem, x0, tol, *rest: honest(chosen, problem, x0, 1e-2)
        )
        family = battery.Family("small", lambda seed: lo.problems.Procrustes.random(5, rng=seed))
        found = solvers.run_battery(
            solvers.Settings([family], ["landing"], seeds=1, repeats=1, tols=(1e-6,))
        )
        assert not found[0].solved and found[0].claimed and math.isnan(found[0].seconds)
        assert "1e-6: 1 WRONG: CONVERGED" in tables.runs_table(found, (1e-6,))
        assert summary.bounds(found, (1e-6,))[0].holds is False


class TestProducts:
    kernels = NumpyMatrix(np.ones((1, 1)))

    @pytest.mark.parametrize(
        ("name", "shapes", "count"),
        [
            ("matmul", ((7, 3), (3, 2)), 42),
            ("cross", ((7, 3), (7, 2)), 42),
            ("outer", ((7, 3), (2, 3)), 42),
        ],
    )
    def test_known_products(self, name, shapes, count):
        with counted_products() as total:
            product = getattr(self.kernels, name)(*(np.ones(shape) for shape in shapes))
            assert total == [count]
            assert product.size * product.flat[0] == count  # ones: each entry is the inner size

    def test_fused_kernels_count_what_they_are_made_of(self):
        x, buffers = np.ones((7, 3)), (np.empty((3, 3)), np.empty((3, 3)), np.empty((7, 3)))
        with counted_products() as total:
            self.kernels.residual(x, buffers[0])
            assert total == [63]
            self.kernels.tangent(x, x, *buffers)
            assert total == [63 + 126]

    def test_the_observer_is_not_counted(self):
        a = np.ones((2, 2))
        with counted_products() as total:
            clock = Clock(a)
            clock.pause()
            self.kernels.matmul(a, a)
            assert total == [0]
            clock.resume()
            self.kernels.matmul(a, a)
            assert total == [8]

    def test_a_landing_step_costs_three_products(self):
        problem = lo.problems.Procrustes.random(6, rng=0)
        method = lo.landing(step=1e-3)
        counts = []
        for steps in (4, 9):
            with counted_products() as total:
                lo.minimize(
                    problem, method=method, stop=lo.MaxIterations(steps), record=lo.Every(10**9),
                    rng=0,
                )  # fmt: skip
            counts.append(total[0])
        assert counts[1] - counts[0] == 5 * 3 * 6**3

    def test_everything_is_restored(self):
        def kernels():
            return [_blas.product, dict(vars(Clock))]

        def broken():
            with counted_products():
                raise RuntimeError("no luck")

        before = kernels()
        with counted_products():
            assert kernels() != before
        assert kernels() == before
        with pytest.raises(RuntimeError, match="no luck"):
            broken()
        assert kernels() == before


class TestPymanopt:
    family = battery.BATTERY[0]
    problem = family.make(0)
    x0 = family.start(problem, 0)

    @pytest.mark.parametrize("name", list(runs.PYMANOPT))
    def test_alone_it_ends_where_the_bridge_met_the_tolerance(self, name):
        seen, _ = runs.cross(name, self.problem, self.x0, (1e-2, 1e-4), 20.0)
        assert seen[1e-2].iterations < seen[1e-4].iterations
        for tol, there in seen.items():
            x, seconds = runs.Native(name, self.problem, self.x0, there.iterations).run()
            np.testing.assert_allclose(x, there.x, rtol=0, atol=1e-13)
            assert runs.judge(self.problem, x, self.x0).solved(tol) and seconds > 0.0
            before, _ = runs.Native(name, self.problem, self.x0, there.iterations - 1).run()
            assert not runs.judge(self.problem, before, self.x0).solved(tol)

    def test_a_stall_is_called_so(self):
        seen, result = runs.cross("pymanopt-cg", self.problem, self.x0, (1e-6, 1e-14), 20.0)
        assert list(seen) == [1e-6]
        assert runs.status_word("pymanopt-cg", result) == "STALLED"

    def test_counts_are_those_of_the_library_and_points_are_told_apart(self):
        for name in runs.PYMANOPT:
            seen, _ = runs.cross(name, self.problem, self.x0, (1e-4,), 20.0)
            calls = seen[1e-4].calls
            rule = lo.GradientNorm(rtol=1e-4) | lo.MaxIterations(1000)
            result = lo.minimize(self.problem, self.x0, runs.method(name), stop=rule)
            assert (calls.f, calls.g, calls.h) == (result.nfev, result.njev, result.nhev)
            if name == "pymanopt-tr":  # a gradient for each Hessian product, at known points
                assert calls.g - calls.g_points >= calls.h and calls.f_points == calls.f
            else:  # f again after each line search
                assert calls.g_points == calls.g
                assert calls.f - calls.f_points == seen[1e-4].iterations

    def test_the_ideal_time_lies_between_what_remains_and_what_was_spent(self):
        each = runs.OracleSeconds(f=1.0, g=2.0, fg=2.5, h=3.0)
        calls = runs.Calls(f=10, f_points=6, g=5, g_points=4, h=2)
        # Saved: 4 values, 1 gradient, and half a second at 4 gradient points.
        assert runs.ideal_seconds(100.0, calls, each) == 100.0 - 4.0 - 2.0 - 2.0
        left = 6.0 + 4 * 1.5 + 2 * 3.0
        assert runs.ideal_seconds(19.0, calls, each) == left
        assert runs.ideal_seconds(10.0, calls, each) == 10.0
        dear = replace(each, fg=4.0)  # both together cost more: nothing to save there
        assert runs.ideal_seconds(100.0, calls, dear) == 94.0

    def test_oracle_seconds(self):
        each = runs.oracle_seconds(self.problem, self.x0, budget=0.0)
        assert min(each.f, each.g, each.fg, each.h) > 0.0


class TestBattery:
    def test_names_and_patterns(self):
        names = [family.name for family in battery.BATTERY]
        assert len(set(names)) == len(names) == 14
        assert [f.name for f in battery.chosen(["procrustes-?0", "ica*"])] == [
            "procrustes-10", "procrustes-40", "ica-digits-40",
        ]  # fmt: skip
        assert 1 < len(battery.chosen(None, quick=True)) < len(battery.chosen(None))
        with pytest.raises(ValueError, match=r"no problem matches 'nope'; there are procrustes-10"):
            battery.chosen(["nope"])

    def test_starts(self):
        family = battery.BATTERY[0]
        problem = family.make(3)
        x0 = family.start(problem, 3)
        np.testing.assert_array_equal(x0, family.start(problem, 3))
        assert np.abs(x0 - family.start(problem, 4)).max() > 0.1
        assert lo.stiefel.distance(x0) < 4e-15 * math.sqrt(10)

    def test_the_digits_need_scikit_learn(self, monkeypatch):
        monkeypatch.setattr(battery.importlib.util, "find_spec", lambda name: None)
        lines = []
        settings = solvers.Settings(battery.chosen(["ica*"]), ["landing"], seeds=3)
        assert solvers.run_battery(settings, lines.append) == []
        assert lines == [
            "ica-digits-40 is left out: the digits need scikit-learn: "
            'pip install "landingopt[examples]"'
        ]


def run(*arguments):
    return CliRunner().invoke(cli.app, ["bench", "solvers", *map(str, arguments)])


class TestCommand:
    def test_quick(self, tmp_path):
        out, plot = tmp_path / "a.csv", tmp_path / "a.png"
        result = run(
            "--quick", "--problems", "procrustes-10", "--repeats", 1, "--out", out, "--plot", plot
        )
        assert result.exit_code == 0, result.output
        assert "pymanopt 2." in result.stdout and "cores" in result.stdout
        assert re.search(r"procrustes-10 +landing +1/1 +1/1 ", result.stdout)
        assert "geometric mean" in result.stdout
        assert re.search(r"PASS +ours solve every run at 1e-10", result.stdout)
        assert "procrustes-10, seed 0" in result.stderr
        assert plot.read_bytes().startswith(b"\x89PNG")
        with open(out, newline="") as file:
            rows = {(r["method"], r["tol"]): r for r in csv.DictReader(file)}
        row = rows["landing", "1e-06"]
        assert row["solved"] == "True" and row["repeats"] == "1" and float(row["products"]) > 100
        assert float(row["seconds_outside"]) >= float(row["seconds"]) > 0.0
        assert rows["landing", "1e-12"]["solved"] == "True"
        assert rows["pymanopt-cg", "1e-06"]["products"] == "nan"
        assert rows["pymanopt-cg", "1e-10"]["status"] == "STALLED"

    def test_check(self, monkeypatch):
        made = good_records()
        monkeypatch.setattr(solvers, "run_battery", lambda settings, say: made)
        nothing = ("--out", "none", "--plot", "none")
        result = run("--check", *nothing)
        assert result.exit_code == 0 and result.stdout.count("PASS") == 9
        made = changed(made, lambda r: r.method == "landing", seconds=4.0)
        result = run("--check", *nothing)
        assert result.exit_code == 1
        assert re.search(r"FAIL +landing against .*at least 3x: 1\.25x", result.stdout)
        assert run(*nothing).exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--problems", "nope"), "--problems: no problem matches 'nope'; there are procrustes"),
            (("--problems", ","), "--problems names none"),
            (("--methods", "landing-step"), "bench solvers runs landing"),
            (("--methods", "landing,nope"), "pymanopt-tr; not nope"),
            (("--methods", ""), "--methods names none"),
            (("--tol", "small"), "--tol must be numbers, comma separated, got 'small'"),
            (("--tol", "2"), "--tol must lie between 0 and 1"),
            (("--plot", "a.xyz"), "suffix must be .png, .pdf or .svg"),
        ],
    )
    def test_mistakes(self, arguments, message):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr and len(result.stderr.splitlines()) == 1
