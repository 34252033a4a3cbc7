"""``landingopt bench stochastic``: what it measures is what it says, and each claim can fail."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt.bench import defaults, memmap, stochastic
from landingopt.cli import app

TINY = (stochastic.Size(6, 6, 8, 64), stochastic.Size(30, 4, 8, 64))


def test_every_move_takes_the_same_way(rng):
    """Same estimator, samples and step: the moves agree to second order in a short step."""
    problem, x0 = TINY[1].problem(0), lo.stiefel.random(30, 4, rng=0)
    ends = {}
    for name in stochastic.MOVES:
        method = stochastic.method(name, 1e-4, lo.estimators.MiniBatch(8))
        result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(20), rng=1)
        ends[name] = result.feasible_x
    moved = np.linalg.norm(ends["QR"] - x0)
    for name, x in ends.items():
        assert np.linalg.norm(x - ends["landing"]) < 1e-3 * moved, name
    other = lo.minimize(
        problem,
        x0,
        stochastic.method("QR", 2e-4, lo.estimators.MiniBatch(8)),
        stop=lo.MaxIterations(20),
        rng=1,
    )
    assert np.linalg.norm(other.feasible_x - ends["QR"]) > 0.5 * moved  # the control


def test_epochs_and_their_table(tmp_path):
    rows = stochastic.epochs(TINY, ["landing", "QR"], repeats=1)
    assert [(row.n, row.p, row.method) for row in rows] == [
        (6, 6, "landing"),
        (6, 6, "QR"),
        (30, 4, "landing"),
        (30, 4, "QR"),
    ]
    assert all(row.seconds > 0 and row.gradient_seconds > 0 for row in rows)
    assert all(row.products_seconds > 0 for row in rows)
    assert rows[1].distance < 1e-13
    text = stochastic.epochs_table(rows)
    assert "30 x 4" in text and "x)" in text
    path = tmp_path / "rows.csv"
    stochastic.write_csv(rows, path)
    with open(path, newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["kind"] for row in written] == ["Epoch"] * 4
    assert float(written[2]["seconds"]) == rows[2].seconds


def test_memory_is_that_of_the_estimators():
    text = stochastic.memory_table(TINY[1:])
    # 8 blocks of 30 x 4 numbers, 64 x 4 numbers.
    assert "7.5 KiB" in text and "2 KiB" in text


def test_a_way_that_does_not_reach_the_loss_says_so(rng):
    problem = lo.problems.SampledPCA.random(200, 6, 2, rng=0)
    x0 = lo.stiefel.random(6, 2, rng=0)
    estimator = lo.estimators.Svrg(8)
    best = problem.optimum()[1]
    arguments = ("PCA", "SVRG", "landing", problem, x0, 0.3, estimator)
    assert stochastic._way(*arguments, best + 1e-6).reached
    never = stochastic._way(*arguments, best - 1.0)
    assert not never.reached
    assert "not reached" in stochastic.ways_table([never])


class TestClaims:
    RUNS = tuple(
        defaults.Run(p, m, m, np.array([0.0, float(goal)]), np.array([1.0, 9e-9]), 1.0)
        for (p, m), goal in defaults.GOALS.items()
    )

    @staticmethod
    def epoch(method, seconds, n=500, p=50):
        return stochastic.Epoch(n, p, 32, method, seconds, 1.0, 1.0, 0.0)

    def test_all_hold(self):
        rows = [self.epoch("landing", 2.6), self.epoch("QR", 2.7)]
        found = defaults.bounds(self.RUNS, rows)
        assert len(found) == 6
        assert all(bound.holds for bound in found)

    @pytest.mark.parametrize("which", range(4))
    @pytest.mark.parametrize("fault", ["late", "short of it"])
    def test_epochs_can_fall_short(self, which, fault):
        runs = list(self.RUNS)
        run = runs[which]
        epochs, norms = run.epochs.copy(), run.norms.copy()
        epochs[-1] += fault == "late"
        norms[-1] *= 2 if fault == "short of it" else 1
        runs[which] = defaults.Run(run.problem, run.method, "", epochs, norms, 1.0)
        assert [bound.holds for bound in defaults.bounds(runs, [])].count(False) == 1

    def test_a_slow_landing_is_seen(self):
        rows = [self.epoch("landing", 2.7), self.epoch("QR", 2.6)]
        found = [bound.holds for bound in defaults.bounds(self.RUNS, rows)]
        assert found[-2:] == [False, False]
        small = [self.epoch("landing", 2.7, 50, 5), self.epoch("QR", 2.8, 50, 5)]
        assert all(bound.holds for bound in defaults.bounds(self.RUNS, small))


def test_the_figure_has_a_line_for_each_method(tmp_path):
    runs = [
        defaults.Run(p, m, m, np.arange(5.0), np.geomspace(1.0, 1e-4, 5), 1.0)
        for p in ("PCA", "ICA")
        for m in defaults.methods()
    ]
    figure = defaults.plot(runs, tmp_path / "figure.png")
    assert [len(axes.lines) for axes in figure.axes] == [4, 4]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "9.9e-05" in defaults.table(
        [defaults.Run("PCA", "SAGA", "", *[np.array([9.9e-5])] * 2, 1.0)]
    )


def test_a_file_is_read_as_it_is_drawn():
    rows = memmap.measure(0.01, repeats=1)
    assert [row.method for row in rows] == list(memmap.METHODS)
    assert all(row.file_seconds > 0 and row.memory_seconds > 0 for row in rows)
    assert "speed" in memmap.table(rows)


def test_anonymous_memory_is_seen():
    """The control: an array in memory does grow."""
    before = memmap.anonymous_bytes()
    if before == 0.0 or np.isnan(before):
        pytest.skip("this system does not tell anonymous memory")
    with memmap._anonymous_peak() as peak:
        block = np.ones(4_000_000)
        import time

        time.sleep(0.1)
        del block
    assert peak[0] > 2.5e7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "landing,qr"], "bench stochastic runs landing, CholeskyQR, QR"),
        (["--methods", ","], "--methods names none"),
        (["--plot", "nowhere/x.png"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = CliRunner().invoke(app, ["bench", "stochastic", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(stochastic, "SIZES", (stochastic.Size(30, 4, 8, 64, quick=True),))
    monkeypatch.setattr(stochastic, "ways", lambda *args: [])
    monkeypatch.setattr(defaults, "run", lambda *args: list(TestClaims.RUNS))
    out, plot = tmp_path / "rows.csv", tmp_path / "figure.png"
    arguments = ["--quick", "--methods", "landing,QR", "--out", out, "--plot", plot]
    result = CliRunner().invoke(app, ["bench", "stochastic", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "30 x 4" in result.output and "PASS" in result.output
    assert out.exists() and plot.exists()


def test_the_command_on_a_file():
    result = CliRunner().invoke(app, ["bench", "stochastic", "--memmap", "0.01", "--repeats", "1"])
    assert result.exit_code == 0, result.output
    assert "landing_svrg" in result.output
