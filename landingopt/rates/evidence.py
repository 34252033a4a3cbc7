"""What is measured against what theory says: one line each, as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """A measured number beside the number that theory gives for it.

    Attributes
    ----------
    name : str
        What was measured.
    measured, expected : float
    holds : bool
    relation : str
        "<=": a bound; ">=": a bound from below; "==": an exact law, to ``tolerance``.
    tolerance : float
        Relative, of an exact law.
    note : str
        Where, or how many times.
    """

    name: str
    measured: float
    expected: float
    holds: bool
    relation: str = "<="
    tolerance: float = 0.0
    note: str = ""

    @classmethod
    def bound(cls, name: str, measured: float, bound: float, note: str = "") -> Evidence:
        """Measured <= bound; nan never holds."""
        return cls(name, float(measured), float(bound), bool(measured <= bound), note=note)

    @classmethod
    def law(
        cls, name: str, measured: float, expected: float, tolerance: float, note: str = ""
    ) -> Evidence:
        """Measured = expected within a relative tolerance."""
        holds = abs(measured - expected) <= tolerance * abs(expected)
        return cls(name, float(measured), float(expected), bool(holds), "==", tolerance, note)

    @property
    def ratio(self) -> float:
        """Measured over expected."""
        return self.measured / self.expected if self.expected else math.nan

    def __bool__(self) -> bool:
        return self.holds


def evidence_table(lines: Sequence[Evidence]) -> str:
    """Aligned plain text, a line for each."""
    rows = [("", "measured", "", "theory", "ratio", "")]
    for line in lines:
        rows.append(
            (
                line.name,
                f"{line.measured:.6g}",
                {"==": "="}.get(line.relation, line.relation),
                f"{line.expected:.6g}",
                f"{line.ratio:.4g}",
                ("holds" if line.holds else "BROKEN") + (f", {line.note}" if line.note else ""),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i in (0, 2, 5) else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
