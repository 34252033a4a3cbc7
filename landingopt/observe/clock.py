"""The clock that a method is timed by: stopped while an observer measures."""

from __future__ import annotations

import time
from typing import Any

from landingopt import _xp


class Clock:
    """Seconds that the method itself has used; ``wall()`` counts everything.

    Pausing and resuming wait for the device, so that queued work is charged where it belongs.
    """

    __slots__ = ("_like", "_used", "_since", "_begin")

    def __init__(self, like: Any):
        self._like = like
        self._used = 0.0
        self._begin = time.perf_counter()
        self._since: float | None = self._begin

    def pause(self) -> bool:
        """True where it was running."""
        running = self._since is not None
        if self._since is not None:
            _xp.synchronize(self._like)
            self._used += time.perf_counter() - self._since
            self._since = None
        return running

    def resume(self) -> None:
        if self._since is None:
            _xp.synchronize(self._like)
            self._since = time.perf_counter()

    def seconds(self) -> float:
        if self._since is None:
            return self._used
        return self._used + time.perf_counter() - self._since

    def wall(self) -> float:
        return time.perf_counter() - self._begin
