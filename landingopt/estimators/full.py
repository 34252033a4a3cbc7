"""The exact gradient."""

from __future__ import annotations

from dataclasses import dataclass

from landingopt.oracle import Oracle


@dataclass(frozen=True)
class Full:
    """The full gradient of the problem, and f with it where the search reads f."""

    def start(self, oracle: Oracle, value: bool) -> FullRun:
        return FullRun(oracle, value)


class FullRun:
    __slots__ = ("fill",)

    def __init__(self, oracle: Oracle, value: bool):
        self.fill = oracle.fill_both if value else oracle.fill_gradient

    def __repr__(self) -> str:
        return "FullRun()"
