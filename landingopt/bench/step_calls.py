"""The array calls of one step: recorded, counted, and made again without the library around them.

While a tape records, the library works on arrays of a subclass of ``numpy.ndarray`` that reports what is
done to it, and its modules see a ``numpy`` that hands out such arrays. An *array call* is every entry
into NumPy with an array (a function, a ufunc or an operator, a method, an index), and every routine of
SciPy's BLAS and LAPACK. A call whose result is a new look at the memory of an argument (``x.T``,
``x.ravel()``, a slice) is a *view*, counted apart. Not counted are attributes such as ``x.shape`` and
what is done to NumPy's scalars.
"""

from __future__ import annotations

import operator
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from scipy.linalg import blas, lapack

from landingopt.oracle import Oracle

_METHOD: Any = type(np.ndarray.dot)
_ROUTINE: Any = type(blas.dgemm)
_GETTERS = (blas.get_blas_funcs, lapack.get_lapack_funcs)
_GETS = {name: operator.attrgetter(name) for name in ("T", "mT", "real", "imag")}


@dataclass(frozen=True, eq=False)
class Call:
    """One array call, with plain arrays."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def name(self) -> str:
        """Such as "multiply", "dot", "T", "getitem", "dgemm"."""
        for name, get in _GETS.items():
            if self.function is get:
                return name
        return str(getattr(self.function, "__name__", self.function)).removeprefix("function ")

    @property
    def view(self) -> bool:
        """Is the result a new look at an argument's memory?"""
        result, given = self.result, _arrays((self.args, self.kwargs))
        if not isinstance(result, np.ndarray) or any(result is a for a in given):
            return False
        return result.base is not None and any(np.may_share_memory(result, a) for a in given)

    @property
    def multiplications(self) -> int:
        """r k c of a product (r x k)(k x c), summed over a stack; 0 of everything else."""
        name, result = self.name, self.result
        if not isinstance(result, np.ndarray) or result.ndim < 2:
            return 0
        if name in ("matmul", "dot"):
            return int(result.size * self.args[0].shape[-1])
        if name.endswith("gemm"):  # alpha, a, b, ...
            return int(result.size * (self.args[1].size // result.shape[0]))
        return 0


class Tape:
    """What was called while it was ``running``."""

    def __init__(self) -> None:
        self.running = False
        self.made: list[Call] = []
        self._known: WeakValueDictionary[int, Any] = WeakValueDictionary()

    @property
    def calls(self) -> int:
        """Array calls that are no views."""
        return len(self.made) - self.views

    @property
    def views(self) -> int:
        return sum(call.view for call in self.made)

    @property
    def multiplications(self) -> int:
        return sum(call.multiplications for call in self.made)

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """``function`` of plain arrays; its arrays are handed back as counting ones."""
        args, kwargs = _mapped(plain, args), _mapped(plain, kwargs)
        begin = time.perf_counter()
        result = function(*args, **kwargs)
        seconds = time.perf_counter() - begin
        if self.running and _arrays((args, kwargs, result)):
            self.note(Call(function, args, kwargs, result), seconds)
        return _mapped(self.counting, result)

    def note(self, call: Call, seconds: float) -> None:
        """An array call, and what it took, while the tape runs."""
        self.made.append(call)

    def counting(self, array: np.ndarray) -> Any:
        """The one counting array that stands for a plain array: the library compares identities."""
        if isinstance(array, _Counting):
            return array
        known = self._known.get(id(array))
        if known is None:
            known = self._known[id(array)] = _Counting.of(array, self)
        return known

    def function(self, function: Any) -> Any:
        return _Function(self, function)


class _Counting(np.ndarray):
    """Reports to its tape what is done to it, and lets NumPy do it with the plain array."""

    tape: Tape
    plain: np.ndarray

    @staticmethod
    def of(array: np.ndarray, tape: Tape) -> _Counting:
        found: Any = array.view(_Counting)
        found.tape, found.plain = tape, array
        return found

    def __array_finalize__(self, other: Any) -> None:
        if isinstance(other, _Counting):  # made behind the tape's back
            self.tape, self.plain = other.tape, np.ndarray.view(self, np.ndarray)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        out = kwargs.get("out", ())
        if method == "__call__" and out and all(a is not None for a in out):
            del kwargs["out"]
            args += out
        return self.tape.call(function, args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self.tape.call(function, args, kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self.tape.call(operator.getitem, (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tape.call(operator.setitem, (self, key, value), {})


def _reporting(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)
    return lambda self, *args, **kwargs: self.tape.call(method, (self, *args), kwargs)


def _reporting_attribute(name: str) -> property:
    get = _GETS[name]
    return property(lambda self: self.tape.call(get, (self,), {}))


for _name in vars(np.ndarray):
    _method = callable(getattr(np.ndarray, _name)) and not _name.startswith("__")
    if _method and _name != "setflags":  # of the one array alone
        setattr(_Counting, _name, _reporting(_name))
for _name in _GETS:
    setattr(_Counting, _name, _reporting_attribute(_name))


class _Function:
    """A function of NumPy's, or a method of ``ndarray``, that reports."""

    def __init__(self, tape: Tape, function: Any):
        self._tape, self._function = tape, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tape.call(self._function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return _reporting_value(self._tape, getattr(self._function, name))


class _Numpy:
    """NumPy, or ``numpy.linalg``, whose functions report."""

    def __init__(self, tape: Tape, module: ModuleType):
        self._tape, self._module = tape, module

    def __getattr__(self, name: str) -> Any:
        return _reporting_value(self._tape, getattr(self._module, name))


def _reporting_value(tape: Tape, value: Any) -> Any:
    if value is np.linalg:
        return _Numpy(tape, value)
    if isinstance(value, (type, ModuleType)) or not callable(value):
        return value
    return _Function(tape, value)


def _reporting_getter(tape: Tape, getter: Callable[..., Any]) -> Callable[..., Any]:
    """``get_blas_funcs`` or ``get_lapack_funcs`` of routines that report."""

    def got(*args: Any, **kwargs: Any) -> Any:
        found = getter(*args, **kwargs)
        return (
            [tape.function(f) for f in found] if isinstance(found, list) else tape.function(found)
        )

    return got


def plain(array: np.ndarray) -> np.ndarray:
    """What a counting array stands for; another array itself."""
    return array.plain if isinstance(array, _Counting) else array


def _mapped(function: Callable[[np.ndarray], Any], value: Any) -> Any:
    """``value`` with ``function`` applied to the arrays in it."""
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, dict):
        return {name: _mapped(function, each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_mapped(function, each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _arrays(value: Any) -> list[np.ndarray]:
    """The arrays in ``value``."""
    found: list[np.ndarray] = []
    _mapped(found.append, value)
    return found


def _replacements(tape: Tape) -> Iterator[tuple[ModuleType, str, Any]]:
    """What the library's modules are to see in place of NumPy, its methods and SciPy's routines."""
    numpy = _Numpy(tape, np)
    getters = {id(getter): _reporting_getter(tape, getter) for getter in _GETTERS}
    for name, module in list(sys.modules.items()):
        ours = name.split(".")[0] == "landingopt" and not name.startswith("landingopt.bench")
        if not ours and module not in (blas, lapack):
            continue
        for key, value in list(vars(module).items()):
            if id(value) in getters:
                yield module, key, getters[id(value)]
            elif ours and value is np:
                yield module, key, numpy
            elif ours and (_is_method(value) or isinstance(value, _ROUTINE)):
                yield module, key, tape.function(value)


def _is_method(value: Any) -> bool:
    """A method of ``ndarray``, not bound to an array."""
    return isinstance(value, _METHOD) and value.__objclass__ is np.ndarray


@contextmanager
def recording(tape: Tape | None = None) -> Iterator[Tape]:
    """A tape, a new one by default, to which the library reports its array calls; it does not run yet.

    Replaced, and restored at the end, are ``numpy`` in the library's modules, methods of ``ndarray``
    and routines of BLAS and LAPACK that a module keeps under a name or asks for, and the gradients that
    come in. What a user's own part does is seen too, where one of its arrays comes from the library.

    Examples
    --------
    >>> from landingopt import _numpy
    >>> with recording() as tape:
    ...     a = tape.counting(np.ones((4, 2)))
    ...     kernels = _numpy.NumpyMatrix(a)
    ...     tape.running = True
    ...     b = kernels.cross(a, a)
    ...     b *= 0.5
    >>> [call.name for call in tape.made], tape.calls, tape.views, tape.multiplications
    (['T', 'dot', 'multiply'], 2, 1, 16)
    """
    tape = Tape() if tape is None else tape
    checked = Oracle.checked
    saved = []

    def counting(self: Oracle, gradient: Any, name: str = "gradient") -> list[Any]:
        return [tape.counting(array) for array in checked(self, gradient, name)]

    try:
        for module, key, value in _replacements(tape):
            saved.append((module, key, getattr(module, key)))
            setattr(module, key, value)
        Oracle.checked = counting  # type: ignore[method-assign]
        yield tape
    finally:
        Oracle.checked = checked  # type: ignore[method-assign]
        for module, key, value in saved:
            setattr(module, key, value)


# -- the same calls, without the library ----------------------------------------------------------


class Replay:
    """The calls of a tape as straight-line code, with nothing between them.

    Arrays that a call has made are handed on to the calls that use them, and dropped after the last one,
    as in the steps themselves; numbers are those of the recording. What is read first and changed later
    (X) is set back each time, to what it was when the replay was made, for a whole number of steps in
    one buffer: numbers of other steps would lead X away.

    Examples
    --------
    >>> with recording() as tape:
    ...     x = tape.counting(np.array([1.0, 2.0]))
    ...     tape.running = True
    ...     y = (x + 1.0).T * x
    >>> replay = Replay(tape.made)
    >>> print(replay.source)
    def replay(times):
        for _ in range(times):
            r0 = c2(c0, c1)
            r1 = c3(r0)
            del r0
            r0 = c4(r1, c0)
        return r0
    >>> replay()
    array([2., 6.])
    """

    def __init__(self, calls: list[Call]):
        self._names: dict[int, str] = {}  # by identity, of arrays that are used or made
        self._known: dict[str, Any] = {}  # what does not change
        self._results = 0
        lines = [self._line(call) for call in calls]
        last = {name: i for i, line in enumerate(lines) for name in (*line.reads, *line.makes)}
        code = ["def replay(times):", "    for _ in range(times):"]
        for array in _carried(calls):
            if not (name := self._names[id(array)]).startswith("r"):
                copies = self._constant(np.copyto), self._constant(array.copy())
                code.append(f"        {copies[0]}({name}, {copies[1]})")
        names = _Names()  # few: a large frame has no room beside it for those of what it calls
        for i, line in enumerate(lines):
            text = f"{', '.join(line.makes)} = {line.text}"
            code.append(f"        {names.given(text)}")
            over = [r for r in {*line.reads, *line.makes} - {"_"} if last[r] == i < len(lines) - 1]
            if over:
                code.append(f"        del {', '.join(names.freed(sorted(over)))}")
        self.source = "\n".join([*code, f"    return {names.given(', '.join(lines[-1].makes))}"])
        exec(self.source, self._known)  # our own text, of our own names
        self._run = self._known["replay"]

    def _line(self, call: Call) -> _Line:
        reads: list[str] = []
        given = [self._text(each, reads) for each in call.args]
        given += [f"{name}={self._text(each, reads)}" for name, each in call.kwargs.items()]
        text = f"{self._constant(call.function)}({', '.join(given)})"
        given_arrays = _arrays((call.args, call.kwargs))
        makes = []
        for each in call.result if isinstance(call.result, tuple) else (call.result,):
            makes.append("_")
            if isinstance(each, np.ndarray) and not any(each is a for a in given_arrays):
                makes[-1] = self._names[id(each)] = f"r{self._results}"
                self._results += 1
        return _Line(makes, text, reads)

    def _text(self, value: Any, reads: list[str]) -> str:
        """What stands for a value in the code; results of other calls are noted in ``reads``."""
        if isinstance(value, np.ndarray):
            name = self._names.get(id(value)) or self._constant(value)
            self._names[id(value)] = name
            if name.startswith("r"):
                reads.append(name)
            return name
        if isinstance(value, (tuple, list)) and _arrays(value):
            inner = ", ".join(self._text(each, reads) for each in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        name = f"c{len(self._known)}"
        self._known[name] = value
        return name

    def __call__(self, times: int = 1) -> Any:
        """Do it so often; what the last call has made, or worked on."""
        return self._run(times)

    def seconds(self, times: int) -> float:
        """Of one round."""
        begin = time.perf_counter()
        self._run(times)
        return (time.perf_counter() - begin) / times


def _carried(calls: list[Call]) -> list[np.ndarray]:
    """Arrays, no views, that are read before they are changed."""
    read: dict[int, np.ndarray] = {}
    changed: dict[int, np.ndarray] = {}
    found = []
    for call in calls:
        given = _arrays((call.args, call.kwargs))
        made = _arrays((call.result,))
        if call.function in (operator.setitem, np.copyto):
            made.append(given[0])
        for array in given:
            target = any(array is a for a in made)
            if id(array) not in changed and (not target or sum(array is a for a in given) > 1):
                read[id(array)] = array
        for array in made:
            if id(array) in read and id(array) not in changed and array.base is None:
                found.append(array)
            changed[id(array)] = array
    return found


class _Names:
    """Short names for results, taken again once they are free."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._free: list[str] = []
        self._count = 0

    def _name(self, result: str) -> str:
        if result not in self._of:
            if not self._free:
                self._free.append(f"r{self._count}")
                self._count += 1
            self._of[result] = self._free.pop()
        return self._of[result]

    def given(self, text: str) -> str:
        """The text with these names in it."""
        return re.sub(r"\br\d+\b", lambda found: self._name(found.group()), text)

    def freed(self, results: list[str]) -> list[str]:
        names = [self._of.pop(result) for result in results]
        self._free += names
        return names


@dataclass(frozen=True)
class _Line:
    """One line of a replay."""

    makes: list[str]
    text: str
    reads: list[str]
