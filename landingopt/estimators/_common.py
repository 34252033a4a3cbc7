"""What the transforms check alike."""

from __future__ import annotations

import math
import numbers
from typing import Any

from landingopt._parts import check_part


def check_base(base: Any, what: str = "base") -> Any:
    """An estimator to build on, or an error that says what one is."""
    return check_part(
        base, what, "estimators",
        "an estimator such as lo.estimators.Full() or lo.estimators.Momentum(0.9)",
    )  # fmt: skip


def check_decay(name: str, value: Any) -> float:
    """A share of the past in [0, 1), as a float."""
    number = float(value) if isinstance(value, numbers.Real) and value is not True else math.nan
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} must be a number in [0, 1), got {value!r}")
    return number


class Around:
    """What the run of a transform hands on from its base."""

    __slots__ = ()

    base: Any

    def epoch(self) -> float:
        return self.base.epoch()

    def curvature(self, x: Any) -> float:
        return self.base.curvature(x)

    def anchor_pair(self) -> Any:
        ask = getattr(self.base, "anchor_pair", None)
        return None if ask is None else ask()


def is_stochastic(estimator: Any) -> bool:
    """Does it see some of the terms at a time?"""
    return bool(getattr(estimator, "stochastic", False))
