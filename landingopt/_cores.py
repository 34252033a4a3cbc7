"""Work on small matrices over the cores, each of which BLAS multiplies by one thread anyway."""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# What the BLAS libraries read: who asks them for one thread means it of us, too.
VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")

_pool: ThreadPoolExecutor | None = None


def asked() -> int | None:
    """The number of BLAS threads that the environment asks for."""
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return None


def count() -> int:
    """How many threads to work with: as many as BLAS has, of the cores that there are.

    BLAS's own limit at run time is known where ``threadpoolctl`` has been imported, which sets it.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    threadpoolctl: Any = sys.modules.get("threadpoolctl")
    if threadpoolctl is not None:
        limits = [
            library["num_threads"]
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        ]
        return min([cores, *limits])
    return min(cores, asked() or cores)


def at_once(tasks: Sequence[Callable[[], Any]]) -> None:
    """Run all of them, the first one here; return when all have ended.

    An error of one is raised, after the others have ended. Each has the caller's context: NumPy's
    ``errstate`` holds in all of them.
    """
    others, here = [], [tasks[0]]
    for task in tasks[1:]:
        try:
            others.append(_workers(len(tasks) - 1).submit(contextvars.copy_context().run, task))
        except RuntimeError:  # the interpreter is about to end, and starts no threads any more
            here.append(task)
    try:
        for task in here:
            task()
    finally:
        errors = [other.exception() for other in others]  # waits
    for error in errors:
        if error is not None:
            raise error


def _workers(needed: int) -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(needed, os.cpu_count() or 1), "landingopt")
    return _pool


def _forget() -> None:
    """A forked process has the object, and none of its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
