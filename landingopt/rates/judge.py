r"""The verdict on a law: slopes of means, rounding floors, and whether f pays for the gradients.

For a sublinear law with promised mean phi(T), the excess of a series is the slope of
log(mean(T) / phi(T)) against log T over the last four dyadic marks, of the running mean and of the
mean over the last half; of the latter over the last three marks too, so that a plateau that has just
been reached is not hidden by the fall before it. All three must be steep enough. A sequence that obeys
the law has an excess of at most 0 in the long run; a plateau under O(1/T) one of 1.

**Does f pay?**  A step eta along a tangent term of metric scale s lowers f by s eta ||grad f||^2 to
first order, so that over a window

    share = (f at its begin - f at its end) / sum s eta_t ||grad f(X_t)||^2

is about 1 while the method descends and 0 on a plateau of noise, or on a cycle. Where f is bounded
below, what has been paid for is O(1/T) by itself; so a slope that is not steep enough yet is held
against the law only where the gradients are not paid for, and a steep one is not trusted where they
are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from landingopt.rates.laws import Law, Linear, Quadratic, Sublinear
from landingopt.rates.series import (
    MARKS,
    Integral,
    Observed,
    Slope,
    dense_enough,
    fitted_slope,
    means,
)

TOLERANCE = 0.1  # on the excess
PAID = 0.25  # a share below this is not a descent
SHORTEST = 1024  # iterations, below which slopes decide nothing
FIRST = 128  # iterations of the shortest of several fresh runs
_FALL = 100.0  # how far a series falls to its floor at least
_STAYS = 0.1  # the last share of the iterations, in which it must not rise again
_RELAXATIONS = 16.0  # of the normal part within the horizon, for N to tell anything


class Verdict(Enum):
    """What the data say of a law."""

    CONSISTENT = "consistent"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class SeriesReport:
    """One series against the law.

    Attributes
    ----------
    name : str
        "||grad||^2", "N" or "f - f*".
    verdict : Verdict
    reason : str
    running, tail, recent : Slope or None
        Of the running mean, of the mean over the last half, and of that over the last three marks; None
        where the series was not fitted.
    promised : float
        The slope that the law promises over the same marks.
    horizons, running_means, tail_means : arrays
        The marks T and the means there (over the seeds).
    decides : bool
        False: shown, but no theorem speaks of it.
    paid : float or None
        The share of the gradients that f has paid for over the last half.
    rounding_after : int or None
        The last iteration above rounding, where the series fell to it.
    floor : float
        Below it the series is rounding.
    """

    name: str
    verdict: Verdict
    reason: str
    running: Slope | None = None
    tail: Slope | None = None
    recent: Slope | None = None
    promised: float = math.nan
    horizons: np.ndarray | None = None
    running_means: np.ndarray | None = None
    tail_means: np.ndarray | None = None
    decides: bool = True
    paid: float | None = None
    rounding_after: int | None = None
    floor: float = math.nan


@dataclass(frozen=True)
class Floors:
    """Below these a series is rounding; ``reached`` says that the solver itself stopped there.

    Up to ``doubtful`` ||grad||^2 may be rounding, where ||G|| is not known.
    """

    gradient: float
    infeasibility: float
    fun: float
    reached: bool = False
    doubtful: float = 0.0


@dataclass(frozen=True)
class _Marked:
    """The marks of a law, and the runs to read each of them from."""

    horizons: np.ndarray
    runs: list[list[Observed]]

    @classmethod
    def of(cls, runs: Sequence[Observed], fresh: bool) -> _Marked | str:
        """The marks, or why there are none."""
        lengths = sorted({run.horizon for run in runs})
        if not fresh or len(lengths) == 1:
            T = lengths[0]
            if T < SHORTEST:
                return f"{T} iterations are too few: at least {SHORTEST}, better 2^13"
            horizons = T / 2.0 ** np.arange(MARKS - 1, -1, -1)
            chosen = [list(runs)] * MARKS
        else:
            lengths = lengths[-MARKS:]
            spans = len(lengths) >= 3 and lengths[-1] >= 4 * lengths[0]
            if not spans or lengths[0] < FIRST or lengths[-1] < SHORTEST:
                return (
                    f"the runs have the lengths {', '.join(map(str, lengths))}: a step fixed in advance "
                    f"needs fresh runs of at least three lengths, from {FIRST} to {SHORTEST} or more, "
                    "that span a factor of 4, better 2^10, 2^11, 2^12 and 2^13"
                )
            horizons = np.array(lengths, dtype=float)
            chosen = [[run for run in runs if run.horizon == T] for T in lengths]
            seeds = min(map(len, chosen))
            chosen = [group[:seeds] for group in chosen]
        sparse = [
            T for T, group in zip(horizons, chosen) if not all(dense_enough(r, T) for r in group)
        ]
        if sparse:
            return (
                f"too few rows in the last half before iteration {sparse[0]:.0f}: record at least 64 to "
                "each doubling of the iterations"
            )
        return cls(horizons, chosen)


def judge(
    runs: Sequence[Observed],
    law: Law,
    floors: Floors,
    *,
    reference_value: float | None = None,
    scale: float | None = 0.5,
    relaxation: float | None = None,
) -> tuple[list[SeriesReport], float]:
    """The reports of all series that the runs have, and the horizon used.

    ``relaxation`` is 1 / (2 eta lam), the iterations in which the normal part falls by e; None: unknown.
    """
    gaps = _gaps(runs, reference_value)
    if isinstance(law, (Linear, Quadratic)):
        from landingopt.rates.local import judge_local

        return judge_local(runs, law, floors, gaps), float(min(run.horizon for run in runs))
    assert isinstance(law, Sublinear)
    marked = _Marked.of(runs, law.fresh)
    paid = None
    if scale is not None and not isinstance(marked, str):
        paid = share_paid(marked.runs[-1], floors, scale)
    gradient = _gradient(runs, law, floors, marked, paid)
    reports = [gradient]
    if all(run.infeasibility is not None for run in runs):
        reports.append(_infeasibility(runs, law, floors, marked, gradient, relaxation))
    if gaps is not None:
        reports.append(_gap(runs, gaps, law, floors, marked, gradient))
    horizon = float(max(run.horizon for run in runs))
    return reports, horizon


def overall(reports: Sequence[SeriesReport]) -> Verdict:
    """REJECTED where one series is, CONSISTENT where all that decide are."""
    verdicts = [report.verdict for report in reports if report.decides]
    if Verdict.REJECTED in verdicts:
        return Verdict.REJECTED
    return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Verdict.CONSISTENT


# -- the three series -----------------------------------------------------------------------------


def _gradient(
    runs: Sequence[Observed],
    law: Sublinear,
    floors: Floors,
    marked: _Marked | str,
    paid: float | None,
) -> SeriesReport:
    name, floor = "||grad||^2", floors.gradient
    if all(float(run.gradient.max()) <= floor for run in runs):
        return SeriesReport(
            name,
            Verdict.INCONCLUSIVE,
            "at rounding from the first iterate on: nothing is left to converge; start elsewhere",
        )
    if _reached(runs, [run.gradient for run in runs], floor, floors.reached):
        return _fast(name, runs, [run.gradient for run in runs], floor, paid)
    if isinstance(marked, str):
        return SeriesReport(name, Verdict.INCONCLUSIVE, marked)
    report = _fitted(name, [[run.gradient for run in g] for g in marked.runs], marked, law, floor)
    assert report.tail_means is not None
    excess = _excess(report)
    steep = excess.value <= TOLERANCE
    if steep and _leaves_room(report, law):
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"steep on the whole, but not to the end: {_spread(_room_excess(report), runs)}",
            paid,
        )
    if steep and law.paid and paid is None and _flat(marked, [r.gradient for r in marked.runs[-1]]):
        return _with(report, Verdict.INCONCLUSIVE, _FLAT, paid)
    if steep and law.paid and paid is not None and paid < PAID:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"steep so far, but f has fallen by only {max(paid, 0.0):.0%} of what its gradients amount "
            "to over the last half: a plateau may lie ahead; a longer horizon decides",
            paid,
        )
    if steep:
        return _with(report, Verdict.CONSISTENT, "as steep as promised", paid)
    what = f"{excess.value:+.2f} above the promised slope {report.promised:+.2f}"
    if paid is not None and paid >= PAID:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, but f still falls by {min(paid, 1.0):.0%} of what its gradients amount to: the "
            "run is still descending (past a saddle, or along flat directions), and a longer horizon "
            "decides",
            paid,
        )
    if excess.low <= TOLERANCE:
        return _with(report, Verdict.INCONCLUSIVE, f"{what}, {_spread(excess, runs)}", paid)
    if report.tail_means[-1] <= floors.doubtful:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"flat at ||grad|| = {math.sqrt(report.tail_means[-1]):.1e}, which may be rounding: pass "
            "gradient_size=||G|| (and unit_roundoff=2**-23 of a float32 solver) to tell",
            paid,
        )
    first = float(np.mean([run.gradient[0] for run in runs]))
    if paid is None and report.tail_means[-1] > 0.5 * first:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, but it has hardly left its first value: steps may be small; a longer horizon "
            "decides (columns feasible_fun and step would, too: do the gradients still lower f?)",
            paid,
        )
    if paid is None and _changing(report):
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, and the slope itself is changing: a longer horizon decides (columns feasible_fun "
            "and step would, too: do the gradients still lower f?)",
            paid,
        )
    unpaid = "" if paid is None else f"; f pays for {max(paid, 0.0):.0%} of the gradients"
    return _with(report, Verdict.REJECTED, f"{what}{unpaid}", paid)


def _infeasibility(
    runs: Sequence[Observed],
    law: Sublinear,
    floors: Floors,
    marked: _Marked | str,
    gradient: SeriesReport,
    relaxation: float | None,
) -> SeriesReport:
    name, floor = "N", floors.infeasibility
    values = [run.infeasibility for run in runs]
    # A rise by rounding that the floor, a bound, does not tell from the run's own.
    if all(float(v.max()) <= _FALL * floor and _last(v) <= floor for v in values):  # type: ignore[union-attr]
        return SeriesReport(
            name, Verdict.CONSISTENT, "on the manifold, to rounding, from first to last"
        )
    if _reached(runs, values, floor, False):
        return _fast(name, runs, values, floor)
    if isinstance(marked, str):
        return SeriesReport(name, Verdict.INCONCLUSIVE, marked)
    groups = [[run.infeasibility for run in group] for group in marked.runs]
    report = _fitted(name, groups, marked, law, floor)
    assert report.tail is not None and gradient is not None
    excess = _excess(report)
    if excess.value <= TOLERANCE:
        if _leaves_room(report, law):
            why = f"steep on the whole, but not to the end: {_spread(_room_excess(report), runs)}"
            return _with(report, Verdict.INCONCLUSIVE, why)
        if law.paid and _flat(marked, groups[-1]):
            return _with(report, Verdict.INCONCLUSIVE, _FLAT)
        return _with(report, Verdict.CONSISTENT, "as steep as promised")
    what = f"{excess.value:+.2f} above the promised slope {report.promised:+.2f}"
    # N is fed by the gradients: d is of the order of eta ||R||^2 / (2 lam).
    if gradient.verdict is Verdict.INCONCLUSIVE and (gradient.paid or 0.0) >= PAID:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, fed by gradients that are not decided themselves; a longer horizon decides",
        )
    if relaxation is not None and relaxation * _RELAXATIONS > marked.horizons[-1]:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, but at this lam the normal part needs {relaxation:.2g} iterations to fall by e: "
            "raise lam (1 / (2 step) is Newton–Schulz's), or the horizon",
        )
    if excess.low <= TOLERANCE and report.tail.high > report.tail.low:
        return _with(
            report,
            Verdict.INCONCLUSIVE,
            f"{what}, within the noise; more seeds, or a longer horizon",
        )
    return _with(
        report, Verdict.REJECTED, f"{what}: the iterates do not come to the manifold as promised"
    )


def _gap(
    runs: Sequence[Observed],
    gaps: list[np.ndarray],
    law: Sublinear,
    floors: Floors,
    marked: _Marked | str,
    gradient: SeriesReport,
) -> SeriesReport:
    """f - f*: no theorem promises it for an f that is not convex; shown, and a contradiction told."""
    name, floor = "f - f*", floors.fun
    if _reached(runs, gaps, floor, False):
        report = _fast(name, runs, gaps, floor)
        return _with(report, report.verdict, report.reason, decides=False)
    if isinstance(marked, str):
        return SeriesReport(name, Verdict.INCONCLUSIVE, marked, decides=False)
    by_run = {id(run): gap for run, gap in zip(runs, gaps)}
    groups = [[by_run[id(run)] for run in group] for group in marked.runs]
    report = _fitted(name, groups, marked, law, floor)
    if _excess(report).value <= TOLERANCE:
        return _with(report, Verdict.CONSISTENT, "as steep", decides=False)
    reason = "slower than the gradients"
    if gradient.verdict is Verdict.CONSISTENT and _level(gaps, floor):
        reason = (
            "it stays where it is while the gradients vanish: another critical point than the minimum "
            "(the other component, a saddle), or gradients that are not those of f"
        )
    return _with(report, Verdict.INCONCLUSIVE, reason, decides=False)


# -- parts ----------------------------------------------------------------------------------------


def share_paid(runs: Sequence[Observed], floors: Floors, scale: float) -> float | None:
    """The share of s sum eta ||grad||^2 over the last half that f has fallen by; None if not known.

    f is averaged over an eighth of T at both ends, against noise, and the sum is between their middles.
    """
    if any(run.fun is None or run.step is None for run in runs):
        return None
    fallen, owed = 0.0, 0.0
    for run in runs:
        T = run.horizon
        assert run.fun is not None and run.step is not None
        # The step of a row led to it: the next one's is the step from it.
        ahead = np.append(run.step[1:], run.step[-1])
        f = Integral(run.iteration, run.fun)
        fallen += f.mean(T / 2, 5 * T / 8) - f.mean(7 * T / 8, T)
        owed += scale * Integral(run.iteration, ahead * run.gradient)(9 * T / 16, 15 * T / 16)
    # In the rounding of f nothing can be told.
    return fallen / owed if owed > 4.0 * floors.fun * len(runs) else None


def _reached(runs: Sequence[Observed], values: Sequence[Any], floor: float, stopped: bool) -> bool:
    """Has each series fallen to its floor, seen on the way, and stayed there to the end?"""
    for run, v in zip(runs, values, strict=True):
        last, t = _last(v), run.iteration
        fell = float(v.max()) > _FALL * max(floor, last)
        if not (fell and (last <= floor or stopped)) or np.any(t[1:] > 2 * t[:-1] + 16):
            return False
        above = int(t[np.max(np.flatnonzero(v > 10.0 * max(floor, last)), initial=0)])
        if not stopped and above > (1.0 - _STAYS) * t[-1]:
            return False
    return True


_FLAT = (
    "steep so far, but flat over the last half: a plateau may have been reached; a longer horizon"
)


def _flat(marked: _Marked, values: Sequence[Any]) -> bool:
    """Is the mean over the last quarter that over the one before, where O(1/T) falls by 1.4?"""
    T = marked.horizons[-1]
    before, after = 0.0, 0.0
    for run, v in zip(marked.runs[-1], values, strict=True):
        integral = Integral(run.iteration, v)
        before += integral.mean(T / 2, 3 * T / 4)
        after += integral.mean(3 * T / 4, T)
    return after > 0.94 * before


def _last(values: Any) -> float:
    """The median of the last 2 %."""
    return float(np.median(values[-max(1, len(values) // 50) :]))


def _level(values: Sequence[np.ndarray], floor: float) -> bool:
    """Flat over the last half, above the floor."""
    for v in values:
        half = v[len(v) // 2 :]
        if half.min() <= 10.0 * floor or half.max() > 1.5 * half.min():
            return False
    return True


def _fast(
    name: str,
    runs: Sequence[Observed],
    values: Sequence[Any],
    floor: float,
    paid: float | None = None,
) -> SeriesReport:
    low = [max(floor, _last(v)) for v in values]
    above = [
        int(run.iteration[np.max(np.flatnonzero(v > 10.0 * level), initial=0)])
        for run, v, level in zip(runs, values, low, strict=True)
    ]
    drop = min(float(v.max()) / level for v, level in zip(values, low, strict=True))
    return SeriesReport(
        name,
        Verdict.CONSISTENT,
        f"faster than promised: at rounding after iteration {max(above)}, a fall by {drop:.0e}",
        paid=paid,
        rounding_after=max(above),
        floor=max(low),
    )


def _fitted(
    name: str, groups: list[list[Any]], marked: _Marked, law: Sublinear, floor: float
) -> SeriesReport:
    running, tail = [], []
    for T, runs, values in zip(marked.horizons, marked.runs, groups, strict=True):
        pairs = [means(run, v, np.array([T])) for run, v in zip(runs, values, strict=True)]
        running.append([max(float(a[0]), 1e-300) for a, _ in pairs])
        tail.append([max(float(b[0]), 1e-300) for _, b in pairs])
    promise = law.promise(marked.horizons)
    x = np.log(marked.horizons) - np.mean(np.log(marked.horizons))
    return SeriesReport(
        name,
        Verdict.INCONCLUSIVE,
        "",
        running=fitted_slope(marked.horizons, np.array(running)),
        tail=fitted_slope(marked.horizons, np.array(tail)),
        recent=fitted_slope(marked.horizons[-3:], np.array(tail[-3:])),
        promised=float(x @ np.log(promise) / (x @ x)),
        horizons=marked.horizons,
        running_means=np.mean(running, axis=1),
        tail_means=np.mean(tail, axis=1),
        floor=floor,
    )


def _excesses(report: SeriesReport) -> list[Slope]:
    p = report.promised
    slopes = [s for s in (report.running, report.tail, report.recent) if s is not None]
    return [Slope(s.value - p, s.low - p, s.high - p) for s in slopes]


def _excess(report: SeriesReport) -> Slope:
    """The largest of the three excesses over the promised slope."""
    return max(_excesses(report), key=lambda slope: slope.value)


def _room_excess(report: SeriesReport) -> Slope:
    """The one whose interval reaches furthest: of the running mean, and of the last three marks."""
    running, _, recent = _excesses(report)
    return max(running, recent, key=lambda slope: slope.high)


def _leaves_room(report: SeriesReport, law: Sublinear) -> bool:
    """Does an interval not leave out a plateau, whose excess is the law's power?"""
    return _room_excess(report).high > max(0.8 * law.power, 4.0 * TOLERANCE)


def _spread(excess: Slope, runs: Sequence[Observed]) -> str:
    """Why the interval does not decide."""
    between = f"{excess.low:+.2f} to {excess.high:+.2f}"
    if len(runs) > 1:
        return f"within the noise ({between}): more seeds, or a longer horizon"
    return f"and from mark to mark {between}: a longer horizon decides"


def _changing(report: SeriesReport) -> bool:
    """Do the last two slopes from mark to mark differ, so that no regime has been reached?"""
    assert report.tail_means is not None and report.horizons is not None
    local = np.diff(np.log(report.tail_means)) / np.diff(np.log(report.horizons))
    return bool(abs(local[-1] - local[-2]) > 0.5)


def _with(
    report: SeriesReport,
    verdict: Verdict,
    reason: str,
    paid: float | None = None,
    decides: bool = True,
) -> SeriesReport:
    return replace(report, verdict=verdict, reason=reason, paid=paid, decides=decides)


def _gaps(runs: Sequence[Observed], reference_value: float | None) -> list[np.ndarray] | None:
    if reference_value is None or any(run.fun is None for run in runs):
        return None
    return [np.asarray(run.fun) - reference_value for run in runs]
