"""Against the field itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from landingopt.fields import Form
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class Steepest:
    """Against the field itself; coefficients are handed on, nothing is formed."""

    def start(self, space: Space, oracle: Any = None) -> Steepest:
        return self

    def direction(self, point: Point) -> list[Form]:
        return point.forms
