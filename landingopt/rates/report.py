"""The report of a check: the verdict, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from landingopt.rates.evidence import Evidence, evidence_table
from landingopt.rates.judge import SeriesReport, Verdict
from landingopt.rates.laws import Law
from landingopt.rates.series import Observed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RateReport:
    """What the data say of a law; true where they are CONSISTENT with it.

    Attributes
    ----------
    verdict : Verdict
        CONSISTENT, REJECTED or INCONCLUSIVE.
    reason : str
        What decided: which series, by how much, what would be needed.
    law : Law
    theorem : str
        Where the law is proved for this method; "no theorem; observed" where it is not.
    series : tuple of SeriesReport
        ||grad||^2, N, f - f*: the verdict on each, slopes and intervals.
    checks : tuple of (bool or None, str)
        What was looked at before any run: the gradient against differences of f, the estimates over
        every outcome of the draws. None: could not be.
    exact : tuple of Evidence
        Exact laws that apply to the run (local factors): measured against theory.
    horizon : int
        The longest run used, in iterations.
    seeds : int
        Runs of each length.
    title : str
        Method and problem.
    """

    verdict: Verdict
    reason: str
    law: Law
    theorem: str
    series: tuple[SeriesReport, ...]
    checks: tuple[tuple[bool | None, str], ...] = ()
    exact: tuple[Evidence, ...] = ()
    horizon: int = 0
    seeds: int = 1
    title: str = ""
    runs: Sequence[Observed] = ()
    reference_value: float | None = None

    def __bool__(self) -> bool:
        return self.verdict is Verdict.CONSISTENT

    def __getitem__(self, name: str) -> SeriesReport:
        for report in self.series:
            if report.name == name:
                return report
        raise KeyError(f"no series {name!r}; there are {[report.name for report in self.series]}")

    def __repr__(self) -> str:
        return f"RateReport({self.verdict}, {self.law}: {self.reason})"

    def __str__(self) -> str:
        lines = [f"{self.verdict} with {self.law}: {self.reason}", f"  {self.title}".rstrip()]
        runs = f"{self.seeds} runs of each length" if self.seeds > 1 else "one run"
        used = f"; horizon {self.horizon}, {runs}" if self.horizon else ""
        lines.append(f"  theorem: {self.theorem}{used}")
        for holds, text in self.checks:
            lines.append(f"  {_MARKS[holds]} {text}")
        if self.series:
            lines += ["", *("  " + line for line in _series_table(self.series).splitlines())]
        if self.exact:
            lines += ["", *("  " + line for line in evidence_table(self.exact).splitlines())]
        return "\n".join(line for line in lines if line.strip() or not line)

    def plot(self, path: str | Path | None = None) -> Figure:
        """The means in log-log, the fitted lines and the promised slope; the verdict in the title."""
        from landingopt.rates.figure import plot_report

        return plot_report(self, path)


_MARKS = {True: "ok ", False: "BAD", None: " ? "}


def _series_table(series: Sequence[SeriesReport]) -> str:
    rows = [("", "running mean", "last half", "promised", "f pays", "")]
    for report in series:
        promised = "" if report.running is None else f"{report.promised:+.2f}"
        rows.append(
            (
                report.name,
                "" if report.running is None else str(report.running),
                "" if report.tail is None else str(report.tail),
                promised,
                "" if report.paid is None else f"{min(max(report.paid, 0.0), 9.99):.0%}",
                (str(report.verdict) if report.decides else "shown") + f": {report.reason}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows
    )


def judged(series: Sequence[SeriesReport], verdict: Verdict) -> str:
    """The reason of the verdict, in words."""
    deciding = [report for report in series if report.decides and report.verdict is verdict]
    return "; ".join(f"{report.name}: {report.reason}" for report in deciding)
