"""How a run ended, and the error for runs that broke."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Status(IntEnum):
    """Why a run ended; ``.message`` says it in words and ``.success`` whether it solved the problem."""

    RUNNING = -1
    CONVERGED = 0
    AT_ROUNDING = 1
    MAX_ITERATIONS = 2
    MAX_EPOCHS = 3
    TIMEOUT = 4
    CALLBACK = 5
    LINE_SEARCH = 6
    NONFINITE = 7
    LEFT_TUBE = 8
    EXTERNAL = 9
    STREAM_ENDED = 10

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    @property
    def success(self) -> bool:
        return self in (Status.CONVERGED, Status.AT_ROUNDING)

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "The run has not ended.",
    Status.CONVERGED: "The stop rule is met.",
    Status.AT_ROUNDING: (
        "Solved to rounding: f and the gradient norm no longer improve in this precision."
    ),
    Status.MAX_ITERATIONS: "The limit on iterations was reached before the stop rule was met.",
    Status.MAX_EPOCHS: "The limit on epochs was reached before the stop rule was met.",
    Status.TIMEOUT: "The time limit was reached before the stop rule was met.",
    Status.CALLBACK: "The callback stopped the run.",
    Status.LINE_SEARCH: (
        "The line search found no lower value along a descent direction. The gradient may be wrong "
        "(try lo.check_gradient(problem)), or f is not smooth here."
    ),
    Status.NONFINITE: "f, its gradient or the iterate is not finite.",
    Status.LEFT_TUBE: (
        "The iterate left the neighbourhood of the manifold in which it is attracted to it: the step is "
        "too long. Use a smaller one, or, in a landing, a safe step (lo.steps.Safeguarded)."
    ),
    Status.STREAM_ENDED: "The stream of batches has ended.",
    Status.EXTERNAL: "The external solver stopped by a rule of its own.",
}


class SolveError(RuntimeError):
    """A run broke (NONFINITE, LEFT_TUBE); ``.result`` holds what it had reached.

    Pass ``on_failure="return"`` to ``lo.minimize`` to get the result instead of this error.
    """

    def __init__(self, message: str, result: Any):
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.result)
