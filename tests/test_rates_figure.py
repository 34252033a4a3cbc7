"""The figure of a rate report: what is on it, and that nothing is said about drawing it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import landingopt as lo
from landingopt.cli import procrustes_step
from landingopt.rates import Verdict, laws
from landingopt.rates.figure import COLOURS, plot_report

T = np.arange(4096.0)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trace(gradient, infeasibility=None, **columns):
    found = {"iteration": T, "gradient_norm": np.sqrt(gradient), **columns}
    return found if infeasibility is None else {**found, "infeasibility": infeasibility}


def texts(figure):
    return [text.get_text() for text in figure.texts]


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_consistent_rejected_and_inconclusive_in_three_colours(tmp_path):
    seen = {}
    for name, gradient in {
        "good": 1 / (1 + T) ** 2,
        "plateau": 1e-3 + 1 / (1 + T) ** 2,
        "late": np.where(T < 3000, 1.0, 1e-4),
    }.items():
        report = lo.rates.check_trace(trace(gradient, 1e-3 * gradient), laws.OneOverT())
        figure = plot_report(report)
        assert texts(figure)[0] == f"{report.verdict} with O(1/T)"
        assert figure.texts[0].get_color() == COLOURS[report.verdict]
        seen[name] = report.verdict
    assert seen["good"] is Verdict.CONSISTENT
    assert seen["plateau"] is Verdict.REJECTED
    assert len(set(COLOURS.values())) == 3


def test_panels_legends_and_the_promised_slope():
    gradient = 1 / (1 + T) ** 2
    report = lo.rates.check_trace(
        trace(gradient, 1e-3 * gradient, fun=2.0 + gradient), laws.OneOverT(), reference_value=2.0
    )
    figure = plot_report(report)
    assert [axes.get_title("left") for axes in figure.axes] == [
        r"$\Vert\mathrm{grad}\,f\Vert^2$", r"$N = \Vert X^H X - I\Vert^2 / 4$", r"$f - f^\star$",
    ]  # fmt: skip
    assert [axes.get_title("right") for axes in figure.axes][2] == "shown only"
    for axes, series in zip(figure.axes, report.series):
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert "$T^{-1}$" in [text.get_text() for text in axes.texts]
        shown = labels(axes)
        assert shown[0] == "iterates of a run"
        assert str(series.running).replace("-", "−") in shown[1]
        assert str(series.tail).replace("-", "−") in shown[2]
        assert axes.get_xlabel() == "iterations $T$"


@pytest.mark.parametrize(
    ("law", "label"),
    [
        (laws.OneOverSqrtT(), "$T^{-1/2}$"),
        (laws.LogOverSqrtT(), r"$T^{-1/2}\log T$"),
        (laws.Bounded(), "constant"),
        (laws.Sublinear(0.75), "$T^{-0.75}$"),
    ],
)
def test_the_guide_is_named_by_the_law(law, label):
    figure = plot_report(lo.rates.check_trace(trace(1 / (1 + T) ** 2), law))
    assert label in [text.get_text() for text in figure.axes[0].texts]


def test_the_drawn_means_go_through_the_marks():
    report = lo.rates.check_trace(trace(1 / (1 + T) ** 2), laws.OneOverT())
    lines = {line.get_color(): line for line in reversed(plot_report(report).axes[0].lines)}
    drawn = lines["#0072B2"]
    there = np.interp(report.series[0].horizons, drawn.get_xdata(), drawn.get_ydata())
    assert np.allclose(there, report.series[0].running_means, rtol=1e-2)


def test_a_run_and_its_rounding(tmp_path):
    problem = lo.problems.Procrustes.random(5, rng=0)
    step = procrustes_step(problem)
    report = lo.rates.check(problem, lo.landing(step=step, lam=0.5 / step), rng=0)
    path = tmp_path / "a.png"
    figure = report.plot(path)
    assert path.stat().st_size < 150_000
    assert path.read_bytes().startswith(b"\x89PNG")
    # f - f* may end at 0, which has no place on a logarithmic axis.
    assert all("rounding" in labels(axes) for axes in figure.axes[:2])
    assert "Procrustes(n=5" in texts(figure)[1]
    assert "[AVGA24], gradient descent" in texts(figure)[1]


def test_seeds_are_a_band_and_lengths_are_points():
    rng = np.random.default_rng(0)

    def run(length, seed):
        t = np.arange(float(length))
        noise = np.exp(0.1 * rng.standard_normal(length))
        return {"iteration": t, "gradient_norm": np.sqrt(noise / np.sqrt(length))}

    seeds = lo.rates.check_trace([run(4096, s) for s in range(4)], laws.Bounded())
    assert len(plot_report(seeds).axes[0].collections) == 2
    lengths = [run(n, s) for n in (512, 1024, 2048, 4096) for s in range(3)]
    report = lo.rates.check_trace(lengths, laws.OneOverSqrtT())
    axes = plot_report(report).axes[0]
    assert len(axes.containers) == 2
    assert list(axes.containers[0].lines[0].get_xdata()) == [512, 1024, 2048, 4096]


def test_a_report_without_runs_has_its_reason():
    problem = lo.problems.Procrustes.random(4, rng=0)
    wrong = lo.Objective(problem.fun, lambda x: 1.2 * problem.grad(x), shape=(4, 4))
    report = lo.rates.check(wrong, lo.landing(step=0.01), rng=0)
    assert report.verdict is Verdict.REJECTED
    figure = plot_report(report)
    (axes,) = figure.axes
    said = " ".join(text.get_text() for text in axes.texts).replace("\n", " ")
    assert "the gradient against differences of f" in said


def test_local_laws_have_a_panel():
    figure = plot_report(
        lo.rates.check_trace(trace(0.98 ** np.minimum(T, 3000)), laws.Linear(0.98))
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "linear"
    assert "$0.98^t$" in [text.get_text() for text in axes.texts]


def test_nothing_positive_long_titles_and_short_runs():
    zero = {"iteration": T, "gradient_norm": 0 * T + 1.0, "infeasibility": 0 * T, "fun": -T}
    for rows in (1, 2, 3, 20, 4096):
        short = {name: column[:rows] for name, column in zero.items()}
        plot_report(lo.rates.check_trace(short, laws.OneOverT()))
    report = lo.rates.check_trace(zero, laws.OneOverT())
    object.__setattr__(report, "title", "a $title_ of ^ many words " * 30)
    figure = plot_report(report)
    figure.canvas.draw()
    assert texts(figure)[1].endswith("…")
