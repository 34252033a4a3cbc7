"""The exact gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from landingopt._xp import Array
from landingopt.estimators._sampled import largest_curvature
from landingopt.oracle import Oracle


@dataclass(frozen=True)
class Full:
    """The full gradient of the problem, and f with it where the search reads f."""

    def start(self, oracle: Oracle, value: bool) -> FullRun:
        return FullRun(oracle, value)


class FullRun:
    __slots__ = ("fill", "_oracle")

    def __init__(self, oracle: Oracle, value: bool):
        self._oracle = oracle
        self.fill: Callable[..., None] = oracle.fill_both if value else oracle.fill_gradient

    def epoch(self) -> float:
        return self._oracle.epoch()

    def curvature(self, x: list[Array]) -> float:
        """The largest curvature of f at x, about: four gradients."""
        oracle = self._oracle
        return largest_curvature(
            oracle.space, x, oracle.rng, lambda y: oracle.checked(oracle.gradient(y))
        )

    def __repr__(self) -> str:
        return "FullRun()"
