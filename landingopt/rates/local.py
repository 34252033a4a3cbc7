"""The laws of single terms: linear and quadratic convergence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from landingopt.rates.judge import Floors, SeriesReport, Verdict
from landingopt.rates.laws import Law, Linear
from landingopt.rates.series import Observed

_SLACK = 0.01  # on the rate -log(factor)
_ORDER = 1.7  # an order below this is not quadratic


def judge_local(
    runs: Sequence[Observed], law: Law, floors: Floors, gaps: list[np.ndarray] | None
) -> list[SeriesReport]:
    """One report for each run, named by what it was judged on."""
    if isinstance(law, Linear):
        if gaps is not None:
            return [_linear("f - f*", r, v, floors.fun, law) for r, v in zip(runs, gaps)]
        return [_linear("||grad||^2", r, r.gradient, floors.gradient, law) for r in runs]
    return [_quadratic(r, floors) for r in runs]


def _linear(
    name: str, run: Observed, values: np.ndarray, floor: float, law: Linear
) -> SeriesReport:
    from landingopt.rates.factors import measured_factor

    found = measured_factor(run.iteration, values, floor)
    if math.isnan(found.factor):
        return SeriesReport(
            name,
            Verdict.INCONCLUSIVE,
            "fewer than 12 rows above rounding: record every iteration, or start further away",
        )
    wanted, rate = -math.log(law.factor), -math.log(found.factor)
    width = found.half_width / found.factor
    said = f"a factor of {found.factor:.6g} +- {found.half_width:.1g} per iteration"
    if rate - width >= (1.0 - _SLACK) * wanted:
        return SeriesReport(name, Verdict.CONSISTENT, said)
    if rate + width < (1.0 - _SLACK) * wanted:
        return SeriesReport(
            name,
            Verdict.REJECTED,
            f"{said}: {rate / wanted:.3g} times the promised rate -log({law.factor:.6g})",
        )
    return SeriesReport(
        name,
        Verdict.INCONCLUSIVE,
        f"{said} does not decide on {law.factor:.6g}: a longer run, or a start nearer to the optimum",
    )


def _quadratic(run: Observed, floors: Floors) -> SeriesReport:
    """The order from the last gradient norms above rounding: log e_{t+1} against log e_t."""
    name = "||grad||^2"
    if np.any(np.diff(run.iteration) != 1):
        return SeriesReport(
            name, Verdict.INCONCLUSIVE, "rows are missing: the order needs every iteration"
        )
    e = np.sqrt(run.gradient)
    count = int(np.argmax(run.gradient <= floors.gradient)) or len(e)
    e = e[:count][-4:]
    # Only where it contracts by a factor of 10 and more has the local regime begun.
    begun = np.flatnonzero(e[1:] <= 0.1 * e[:-1])
    if len(begun) < 2 or len(e) < 3:
        slow = len(e) == 4 and not len(begun) and count > 16
        return SeriesReport(
            name,
            Verdict.REJECTED if slow else Verdict.INCONCLUSIVE,
            "the last steps above rounding do not even divide the gradient norm by 10"
            if slow
            else "too few steps between the local regime and rounding: start further away, or use more "
            "digits",
        )
    e = e[begun[0] :]
    x, y = np.log(e[:-1]), np.log(e[1:])
    order = float(np.polyfit(x, y, 1)[0])
    said = f"order {order:.2f} over the last {len(y)} steps above rounding"
    verdict = Verdict.CONSISTENT if order >= _ORDER else Verdict.REJECTED
    return SeriesReport(name, verdict, said)
