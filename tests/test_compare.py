"""lo.compare: the same start and order for all, the table, what breaks, files and figures."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest

import landingopt as lo
from landingopt import Comparison, compare, plotting


@pytest.fixture
def problem():
    return lo.problems.Procrustes.random(6, rng=0)


METHODS = {"free": lo.landing(), "fixed": lo.landing(step=0.02)}


class Watched:
    """A method that notes when it runs, from where, and runs another."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def drive(self, oracle, x0, observer):
        self.log.append((self.name, x0[0].copy()))
        return _minimize_loop(oracle, x0, observer)


class Broken:
    name = "broken"

    def __init__(self, after=0):
        self.left = after

    def drive(self, oracle, x0, observer):
        if not self.left:
            raise RuntimeError("first line\nsecond line")
        self.left -= 1
        return _minimize_loop(oracle, x0, observer)


def _minimize_loop(oracle, x0, observer):
    from landingopt._minimize import _loop

    return _loop(lo.landing(), oracle, x0, observer)[0]


class TestRuns:
    def test_all_start_at_the_same_point_in_rep_major_order(self, problem):
        log = []
        methods = {name: Watched(name, log) for name in "abc"}
        compare(problem, methods, repeats=2, rng=3)
        assert [name for name, _ in log] == list("abc" * 3)  # one warm-up, two repeats
        for _, x0 in log[1:]:
            np.testing.assert_array_equal(x0, log[0][1])

    def test_a_given_start_is_used_and_not_changed(self, problem):
        log = []
        x0 = lo.stiefel.random(6, 6, rng=5)
        kept = x0.copy()
        comparison = compare(problem, [Watched("a", log)], x0, repeats=1)
        np.testing.assert_array_equal(x0, kept)
        np.testing.assert_array_equal(log[0][1], kept)
        np.testing.assert_array_equal(comparison.x0, kept)

    def test_the_start_is_that_of_minimize(self, problem):
        comparison = compare(problem, METHODS, rng=4, repeats=1)
        result = lo.minimize(problem, method=METHODS["free"], rng=4)
        np.testing.assert_array_equal(comparison.results["free"].x, result.x)

    def test_component(self, problem):
        for sign in (1, -1):
            comparison = compare(problem, METHODS, rng=0, repeats=1, component=sign)
            assert all(run.component == sign for run in comparison.results.values())
            assert comparison.reference_value == problem.optimum(component=sign)[1]

    def test_seconds_are_medians_with_their_range(self, problem):
        comparison = compare(problem, METHODS, rng=0, repeats=3)
        for name, runs in comparison.runs.items():
            times = sorted(run.seconds for run in runs)
            assert len(runs) == 3
            assert comparison.seconds[name] == times[1] == comparison.results[name].seconds
            assert comparison.seconds_range[name] == (times[0], times[2])

    def test_list_of_methods_gets_unique_names(self, problem):
        comparison = compare(problem, [lo.landing(), lo.landing()], rng=0, repeats=1)
        assert list(comparison.methods) == ["landing", "landing (2)"]

    def test_stop_rules_by_name(self, problem):
        comparison = compare(
            problem, METHODS, rng=0, repeats=1, tol=1e-9, stop={"fixed": lo.MaxIterations(7)}
        )
        assert comparison.results["fixed"].nit == 7
        assert comparison.results["free"].status is lo.Status.CONVERGED
        free = comparison.results["free"]
        assert free.gradient_norm <= 1e-9 * comparison.first_gradient_norm

    def test_progress_goes_to_standard_error(self, problem, capsys):
        compare(problem, METHODS, rng=0, repeats=1, progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "compare" in captured.err

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"methods": {}}, ValueError, "at least one"),
            ({"methods": "landing"}, TypeError, "dict"),
            ({"methods": lo.landing()}, TypeError, "dict"),
            ({"methods": {1: lo.landing()}}, TypeError, "strings"),
            ({"methods": ["landing"]}, TypeError, "method object"),
            ({"repeats": 0}, ValueError, "repeats"),
            ({"repeats": True}, ValueError, "repeats"),
            ({"accuracy": 0.0}, ValueError, "accuracy"),
            ({"component": "both"}, ValueError, "same point"),
            ({"stop": {"other": lo.MaxIterations(1)}}, ValueError, "other"),
            ({"stop": 5}, TypeError, "stop rule"),
            ({"metrics": 5}, TypeError, "metrics"),
            ({"metrics": {"fun": len}}, ValueError, "column"),
        ],
    )
    def test_bad_input(self, problem, options, error, match):
        with pytest.raises(error, match=match):
            compare(problem, options.pop("methods", METHODS), **options)


class TestReference:
    def test_closed_form_in_the_component_of_the_start(self, problem):
        comparison = compare(problem, METHODS, rng=1, repeats=1)
        sign = lo.stiefel.component(comparison.x0)
        assert comparison.reference_source == "closed form"
        assert comparison.reference_value == problem.optimum(component=sign)[1]
        assert abs(comparison.rows()[0]["gap"]) < 1e-9

    def test_lowest_value_seen_where_no_closed_form_is_known(self):
        problem = lo.problems.UnbalancedProcrustes.random(8, 3, rng=0)
        comparison = compare(problem, METHODS, rng=1, repeats=2)
        assert comparison.reference_source == "lowest value seen"
        gaps = [comparison.curves(name)["gap"].min() for name in METHODS]
        assert abs(min(gaps)) <= 1e-14

    def test_given(self, problem):
        comparison = compare(problem, METHODS, rng=1, repeats=1, reference_value=-3)
        assert (comparison.reference_value, comparison.reference_source) == (-3.0, "given")
        row = comparison.rows()[0]
        assert row["gap"] == row["feasible_fun"] + 3.0
        assert row["relative_gap"] == row["gap"] / 3.0

    def test_without_fun(self):
        target = lo.stiefel.random(5, 5, rng=0)
        problem = lo.Objective(grad=lambda x: x - target, shape=(5, 5))
        comparison = compare(problem, {"fixed": lo.landing(step=0.5)}, rng=0, repeats=1)
        assert math.isnan(comparison.reference_value)
        assert comparison.rows()[0]["solved"]
        assert "-" in comparison.table()


class TestTable:
    def test_columns_and_order(self, problem):
        methods = {"slow": lo.landing(step=0.001), "free": lo.landing()}
        comparison = compare(problem, methods, rng=0, repeats=1, stop=lo.MaxIterations(200))
        rows = comparison.rows()
        assert [row["method"] for row in rows] == ["free", "slow"]
        assert rows[0]["solved"]
        assert not rows[1]["solved"]
        assert rows[1]["seconds_to_accuracy"] == math.inf
        assert rows[0]["ratio_to_accuracy"] == 1.0
        assert comparison.best() == "free"
        result = comparison.results["slow"]
        for key in ("nit", "nfev", "njev", "nhev", "distance", "gradient_norm"):
            assert rows[1][key] == getattr(result, key)
        assert rows[1]["relative_gradient_norm"] == pytest.approx(
            result.gradient_norm / result.trace["gradient_norm"][0]
        )

    def test_text(self, problem):
        comparison = compare(problem, METHODS, rng=0)
        lines = comparison.table().splitlines()
        for title in ("method", "status", "time [ms]", "to 1e-6", "iter", "f", "grad", "hess"):
            assert title in lines[0]
        assert len(lines) == 4
        assert max(map(len, lines)) <= 120
        ends = {line.rindex("e-") for line in lines[2:]}
        assert len(ends) == 1  # aligned
        text = str(comparison)
        assert repr(problem) in text
        assert "closed form" in text
        assert "medians of 3 runs" in text
        assert comparison.table() in text

    def test_long_names_stay_apart(self, problem):
        names = [f"the landing with a fixed step of {step}" for step in (0.01, 0.02)]
        methods = {name: lo.landing(step=float(name[-4:])) for name in names}
        comparison = compare(problem, methods, rng=0, repeats=1, stop=lo.MaxIterations(2))
        lines = comparison.table().splitlines()
        assert max(map(len, lines)) <= 120
        assert len({line.partition(" MAX_ITERATIONS")[0] for line in lines[2:]}) == 2

    def test_time_to_accuracy_is_read_off_the_trace(self, problem):
        comparison = compare(problem, METHODS, rng=0, repeats=1, tol=1e-10, accuracy=1e-4)
        for row in comparison.rows():
            trace = comparison.results[row["method"]].trace
            first = comparison.first_gradient_norm
            there = (trace["gradient_norm"] <= 1e-4 * first) & (trace["distance"] <= 1e-4)
            assert row["seconds_to_accuracy"] == trace["seconds"][np.flatnonzero(there)[0]]
            assert row["seconds_to_accuracy"] < row["seconds"]
        assert "to 1e-4" in comparison.table()

    def test_a_start_that_is_solved(self, problem):
        x0, _ = problem.optimum()
        comparison = compare(problem, METHODS, x0, repeats=1)
        assert all(row["solved"] and row["nit"] == 0 for row in comparison.rows())

    def test_accuracy_fits_the_precision(self):
        problem = lo.problems.Procrustes.random(5, rng=0, dtype=np.float32)
        comparison = compare(problem, METHODS, rng=0, repeats=1, stop=lo.MaxIterations(50))
        assert comparison.accuracy == 100 * np.finfo(np.float32).eps
        assert "to 1.2e-5" in comparison.table()

    def test_metrics(self, problem):
        comparison = compare(
            problem, METHODS, rng=0, repeats=1, metrics={"corner": lambda x: float(x[0, 0])}
        )
        for row in comparison.rows():
            assert row["corner"] == comparison.results[row["method"]].x[0, 0]
        assert "corner" in comparison.table().splitlines()[0]

    def test_metrics_join_those_of_the_record(self, problem):
        record = lo.Every(5, metrics={"one": lambda x: 1.0})
        comparison = compare(
            problem, METHODS, rng=0, repeats=1, record=record, metrics={"two": lambda x: 2.0}
        )
        trace = comparison.results["fixed"].trace
        assert {"one", "two"} <= set(trace.columns)
        assert trace["iteration"][1] == 5


class TestFailures:
    def test_an_exception_costs_only_its_method(self, problem):
        comparison = compare(problem, {"broken": Broken(), **METHODS}, rng=0, repeats=2)
        assert comparison.errors == {"broken": "RuntimeError: first line"}
        assert set(comparison.results) == set(METHODS)
        row = comparison.rows()[-1]
        assert (row["method"], row["status"], row["solved"]) == ("broken", "ERROR", False)
        line = comparison.table().splitlines()[-1]
        assert line.startswith("broken")
        assert line.endswith("RuntimeError: first line")
        assert comparison.best() in METHODS

    def test_an_exception_in_a_later_run_keeps_the_earlier_ones(self, problem):
        comparison = compare(problem, {"broken": Broken(after=2), **METHODS}, rng=0, repeats=3)
        assert len(comparison.runs["broken"]) == 1
        assert "broken" in comparison.results
        (row,) = (row for row in comparison.rows() if row["method"] == "broken")
        assert row["status"] == "ERROR"
        assert not row["success"]
        assert "broken: RuntimeError: first line" in comparison.table()

    def test_a_run_that_breaks_keeps_its_status(self):
        calls = []

        def grad(x):
            calls.append(None)
            return x * (np.nan if len(calls) > 30 else 1.0) + np.arange(4.0)[:, None]

        problem = lo.Objective(lambda x: float(np.sum(x)), grad, shape=(4, 2))
        comparison = compare(problem, {"fixed": lo.landing(step=0.1)}, rng=0, repeats=1)
        assert comparison.rows()[0]["status"] == "NONFINITE"
        assert "NONFINITE" in comparison.table()

    def test_interrupts_are_not_swallowed(self, problem):
        class Interrupted:
            name = "interrupted"

            def drive(self, oracle, x0, observer):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compare(problem, [Interrupted()], rng=0)

    def test_all_broken(self, problem):
        comparison = compare(problem, [Broken()], rng=0)
        assert "RuntimeError" in str(comparison)
        with pytest.raises(ValueError, match="first line"):
            comparison.best()
        with pytest.raises(ValueError, match="first line"):
            comparison.plot()
        with pytest.raises(KeyError, match="no result"):
            comparison.curves("broken")


class TestShapes:
    def test_separable_stack(self):
        problem = lo.problems.Procrustes.random(5, stack=(4,), rng=0)
        comparison = compare(problem, METHODS, rng=0, repeats=1)
        signs = lo.stiefel.component(comparison.x0)
        assert comparison.reference_value == pytest.approx(np.sum(problem.optimum(signs)[1]))
        result, row = comparison.results["free"], comparison.rows()[0]
        assert row["distance"] == result.distance.max()
        assert row["feasible_fun"] == pytest.approx(result.feasible_fun.sum())
        first = comparison.first_gradient_norm
        assert first.shape == (4,)
        assert row["relative_gradient_norm"] == np.max(result.gradient_norm / first)
        curves = comparison.curves("free")
        assert all(values.ndim == 1 for values in curves.values())
        assert abs(curves["gap"][-1]) < 1e-8
        assert "CONVERGED" in comparison.table()

    def test_a_stack_that_is_partly_solved_says_so(self):
        problem = lo.problems.Procrustes.random(5, stack=(4,), rng=0)
        steps = lo.minimize(problem, rng=0).nit
        comparison = compare(
            problem, METHODS, rng=0, repeats=1,
            stop=lo.GradientNorm(rtol=1e-6) | lo.MaxIterations(steps - 1),
        )  # fmt: skip
        (row,) = (row for row in comparison.rows() if row["method"] == "free")
        assert row["status"].endswith("of 4 solved")
        assert not row["solved"]

    def test_product(self):
        problem = lo.Objective(
            lambda x: float(np.sum((x["W"] - 1.0) ** 2) + np.sum((x["b"] - 2.0) ** 2)),
            lambda x: {"W": 2.0 * (x["W"] - 1.0), "b": 2.0 * (x["b"] - 2.0)},
            shape={"W": (4, 2), "b": (3,)},
            constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
        )
        comparison = compare(
            problem, {"free": lo.landing(), "fixed": lo.landing(step=0.2)}, rng=0, repeats=1
        )
        assert all(row["solved"] for row in comparison.rows())
        assert isinstance(comparison.x0, dict)
        assert len(comparison.plot().axes) == 3

    def test_pymanopt_problem(self):
        pymanopt = pytest.importorskip("pymanopt")
        pytest.importorskip("landingopt.baselines.pymanopt_bridge")
        A = np.diag([4.0, 3.0, 2.0, 1.0])
        manifold = pymanopt.manifolds.Stiefel(4, 2)
        problem = pymanopt.Problem(
            manifold,
            pymanopt.function.numpy(manifold)(lambda x: -np.trace(x.T @ A @ x)),
            euclidean_gradient=pymanopt.function.numpy(manifold)(lambda x: -2.0 * A @ x),
        )
        comparison = compare(
            problem, {"ours": lo.landing(), "CG": lo.pymanopt("ConjugateGradient")}, rng=0,
            repeats=1, reference_value=-7.0,
        )  # fmt: skip
        assert not comparison.errors
        assert all(abs(row["gap"]) < 1e-8 for row in comparison.rows())


class TestFiles:
    def test_csv(self, problem, tmp_path):
        comparison = compare(problem, METHODS, rng=0, repeats=1)
        comparison.to_csv(tmp_path / "traces.csv")
        with open(tmp_path / "traces.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for name, result in comparison.results.items():
            mine = [row for row in rows if row["method"] == name]
            for column in result.trace.columns:
                values = np.array([float(row[column]) for row in mine])
                np.testing.assert_array_equal(values, result.trace[column])

    def test_json(self, problem, tmp_path):
        comparison = compare(problem, {**METHODS, "broken": Broken()}, rng=0, repeats=1)
        comparison.to_json(tmp_path / "data.json")
        text = (tmp_path / "data.json").read_text()
        assert "NaN" not in text
        data = json.loads(text)
        assert data["reference_value"] == comparison.reference_value
        assert data["errors"] == comparison.errors
        assert [row["method"] for row in data["table"]] == [
            row["method"] for row in comparison.rows()
        ]
        method = np.array(data["trace"]["method"])
        distance = np.array(data["trace"]["distance"])
        for name, result in comparison.results.items():
            np.testing.assert_array_equal(distance[method == name], result.trace["distance"])

    def test_stack(self, tmp_path):
        problem = lo.problems.Procrustes.random(3, stack=(2,), rng=0)
        comparison = compare(problem, [lo.landing()], rng=0, repeats=1)
        comparison.to_csv(tmp_path / "traces.csv")
        comparison.to_json(tmp_path / "data.json")
        data = json.loads((tmp_path / "data.json").read_text())
        np.testing.assert_array_equal(
            data["trace"]["distance"], comparison.results["landing"].trace["distance"]
        )


class TestFigures:
    @pytest.fixture
    def comparison(self, problem) -> Comparison:
        return compare(problem, METHODS, rng=0, repeats=1, tol=1e-12)

    def test_png(self, comparison, tmp_path):
        from PIL import Image

        comparison.plot(tmp_path / "figure.png")
        with Image.open(tmp_path / "figure.png") as image:
            assert image.format == "PNG"
            # Matplotlib rounds the size in pixels by its version.
            assert np.allclose(image.size, (1800, 600), atol=2)

    def test_other_formats(self, comparison, tmp_path):
        comparison.plot(tmp_path / "figure.pdf")
        comparison.plot(str(tmp_path / "figure.svg"))
        assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (tmp_path / "figure.svg").read_text()

    def test_lines_are_the_traces(self, comparison):
        by_iteration, by_time, distance = comparison.plot().axes
        floor = 2.0**-52 * comparison.reference_value
        for name, result in comparison.results.items():
            trace = result.trace
            gap = np.maximum(trace["feasible_fun"] - comparison.reference_value, floor)
            line = _line(by_iteration, name)
            np.testing.assert_array_equal(line.get_xdata(), trace["iteration"])
            np.testing.assert_array_equal(line.get_ydata(), gap)
            line = _line(by_time, name)
            np.testing.assert_array_equal(line.get_xdata(), 1e3 * trace["seconds"])
            np.testing.assert_array_equal(line.get_ydata(), gap)
            line = _line(distance, name)
            np.testing.assert_array_equal(line.get_ydata(), np.maximum(trace["distance"], 2.0**-52))

    def test_it_reads_without_a_caption(self, comparison):
        figure = comparison.plot()
        assert "Procrustes(n=6" in figure.get_suptitle()
        assert [axes.get_xlabel() for axes in figure.axes] == [
            "iteration",
            "time [ms]",
            "iteration",
        ]
        assert all(axes.get_ylabel() and axes.get_yscale() == "log" for axes in figure.axes)
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == [row["method"] for row in comparison.rows()]
        notes = [text.get_text() for text in figure.axes[0].texts]
        assert any("rounding floor" in note for note in notes)

    def test_everything_drawn_lies_inside_the_figure(self, comparison):
        figure = comparison.plot()
        figure.canvas.draw()
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert min(box.x0, box.y0) >= 0.0
        assert box.x1 <= width
        assert box.y1 <= height

    def test_no_finite_value_vanishes(self, problem):
        comparison = compare(problem, METHODS, rng=0, repeats=1, reference_value=1e9)
        for axes in comparison.plot().axes:
            low, high = axes.get_ylim()
            for line in axes.lines:
                values = np.asarray(line.get_ydata())
                assert np.all((low <= values) & (values <= high))

    def test_optimum_zero(self):
        x = lo.stiefel.random(5, 5, rng=0)
        A = np.random.default_rng(1).standard_normal((5, 5))
        problem = lo.problems.Procrustes(A, x @ A)
        comparison = compare(
            problem, [lo.landing()], x @ lo.stiefel.polar(np.eye(5) + 0.1 * (A - A.T))
        )
        low, high = comparison.plot().axes[0].get_ylim()
        assert 0.0 < low < high

    def test_one_iteration_only(self, problem, tmp_path):
        comparison = compare(problem, METHODS, rng=0, repeats=1, stop=lo.MaxIterations(0))
        comparison.plot(tmp_path / "figure.png")

    def test_trace_figure(self, problem, tmp_path):
        result = lo.minimize(problem, rng=0)
        figure = plotting.plot_trace(result, tmp_path / "trace.png")
        value, gradient, distance = figure.axes
        np.testing.assert_array_equal(value.lines[0].get_ydata(), result.trace["feasible_fun"])
        np.testing.assert_array_equal(gradient.lines[0].get_ydata(), result.trace["gradient_norm"])
        assert distance.get_yscale() == "log"
        _, optimum = problem.optimum(component=result.component)
        value = plotting.plot_trace(result, reference_value=optimum).axes[0]
        assert value.get_yscale() == "log"
        assert (tmp_path / "trace.png").stat().st_size > 10_000

    def test_pyplot_is_left_alone(self):
        code = (
            "import sys, landingopt as lo\n"
            "p = lo.problems.Procrustes.random(3, rng=0)\n"
            "lo.compare(p, [lo.landing()], rng=0, repeats=1).plot()\n"
            "assert 'matplotlib.figure' in sys.modules\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def _line(axes, name):
    (line,) = (line for line in axes.lines if line.get_label() == name)
    return line
