"""Directions: which way to go from a point, given its field."""

from __future__ import annotations

from dataclasses import dataclass

from landingopt.fields import Form
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class Steepest:
    """Against the field itself; coefficients are handed on, nothing is formed."""

    def start(self, space: Space) -> Steepest:
        return self

    def direction(self, point: Point) -> list[Form]:
        return point.forms
