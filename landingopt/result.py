"""What ``lo.minimize`` returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from landingopt.objectives import Variable
from landingopt.observe.trace import Trace
from landingopt.status import Status


@dataclass(eq=False)
class Result:
    """A solution and how it was found, with SciPy's names where SciPy has the notion.

    Attributes
    ----------
    x : array, dict or tuple
        The last iterate, of the start's library, dtype and device; a wide x0 gives a wide x.
    feasible_x : like x
        The closest point with exactly orthonormal columns (polar factor, to rounding).
    fun, feasible_fun : float or array
        f there. An infeasible x flatters f: report ``feasible_fun``.
    gradient_norm : float or array
        ||G - X sym(X^H G)||_F at ``x``.
    distance : float or array
        ||X^H X - I||_F at ``x``.
    nit, nfev, njev, nhev : int
        Iterations (steps; in a separable stack, rounds of trials); evaluations of f, its gradient
        and Hessian products by the method. What an observer measured is not among them.
    seconds : float
        The method's own time; the clock stands still while rows are recorded.
    status : Status, or array of codes for a separable stack
    success : bool
        For a stack: every matrix is solved.
    message : str
    component : int, array or None
        The sign of det x, for square real x: the connected component that the run stayed in.
    trace : Trace
    method : Any
        The method that ran.
    """

    x: Variable
    feasible_x: Variable
    fun: Any
    feasible_fun: Any
    gradient_norm: Any
    distance: Any
    nit: int
    nfev: int
    njev: int
    nhev: int
    seconds: float
    status: Any
    success: bool
    message: str
    component: Any
    trace: Trace = field(repr=False)
    method: Any = None

    def __repr__(self) -> str:
        lines = []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "method":
                value = getattr(value, "name", value)
            elif item.name in ("x", "feasible_x"):
                value = _shape(value)
            elif item.name == "status":
                value = value.name if isinstance(value, Status) else _statuses(value)
            elif isinstance(value, np.ndarray):
                value = f"array of shape {value.shape}, max {np.max(value):.6g}"
            elif isinstance(value, float):
                value = f"{value:.10g}"
            lines.append(f"{item.name:>14}: {value}")
        return "\n".join(lines)


def _shape(x: Any) -> str:
    if isinstance(x, dict):
        return "{" + ", ".join(f"{name!r}: {_shape(value)}" for name, value in x.items()) + "}"
    if isinstance(x, tuple):
        return "(" + ", ".join(_shape(value) for value in x) + ")"
    return f"array of shape {tuple(x.shape)}, {str(x.dtype).rsplit('.', 1)[-1]}"


def _statuses(codes: Any) -> str:
    values, counts = np.unique(np.asarray(codes), return_counts=True)
    return ", ".join(f"{Status(v).name} x {c}" for v, c in zip(values, counts, strict=True))
