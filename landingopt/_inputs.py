"""What comes in: every argument checked before anything runs, with errors that say what to do."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from landingopt import _xp, stiefel
from landingopt._xp import Array
from landingopt.methods import Method
from landingopt.objectives import Objective, Problem, Stiefel, Variable
from landingopt.observe.record import Every, EveryEpoch, Record
from landingopt.observe.stop import (
    Distance,
    GradientNorm,
    MaxEpochs,
    MaxIterations,
    Target,
    check_rule,
)
from landingopt.oracle import Oracle
from landingopt.space import Space
from landingopt.sums import FiniteSum, Stream

_KEYWORDS = (
    "tol", "stop", "record", "rng", "callback", "component", "progress", "on_failure",
)  # fmt: skip
_DEFAULT_LIMIT = 10_000
_DEFAULT_EPOCHS, _TOL_EPOCHS = 20, 100  # the second where there is a tolerance to reach


def unknown_keywords(unknown: dict[str, Any]) -> TypeError:
    name = next(iter(unknown))
    close = difflib.get_close_matches(name, _KEYWORDS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    if name in ("step", "lam", "eps"):
        hint = f" ({name} belongs to the method: method=lo.landing({name}=...))"
    if name in ("args", "jac", "bounds", "constraints", "options", "maxiter"):
        hint = {
            "jac": " (the gradient belongs to the problem: lo.Objective(fun, grad, shape=...))",
            "maxiter": " (write stop=lo.MaxIterations(...))",
        }.get(name, hint)
    return TypeError(
        f"minimize() got an unknown keyword {name!r}{hint}; the accepted ones are problem, x0, "
        "method, " + ", ".join(_KEYWORDS)
    )


def as_problem(problem: Any, x0: Any) -> Problem:
    if any(base.__module__.partition(".")[0] == "pymanopt" for base in type(problem).__mro__):
        from landingopt.baselines.pymanopt_bridge import problem_from_pymanopt

        return problem_from_pymanopt(problem)
    needed = ("shape", "constraint", "fun", "grad", "value_and_gradient", "hessp")
    if isinstance(problem, type):
        raise TypeError(f"problem must be an instance: {problem.__name__} is a class")
    if callable(problem) and not hasattr(problem, "shape"):
        shape = tuple(getattr(x0, "shape", ())) or "(n, p)"
        raise TypeError(
            "minimize takes a problem, not a bare function. Write\n"
            f"    problem = lo.Objective(fun, grad, shape={shape})\n"
            "    lo.minimize(problem, x0)\n"
            "or let a library build the gradient: "
            f"lo.autodiff.jax(fun, shape={shape}), .torch(...), .autograd(...)"
        )
    missing = [name for name in needed if not hasattr(problem, name)]
    if missing:
        raise TypeError(
            f"{type(problem).__name__} is not a problem (it has no {', '.join(missing)}); use "
            "lo.Objective(fun, grad, shape=...), one of lo.problems, or a pymanopt.Problem"
        )
    return problem


def checked_method(method: Any) -> Any:
    if isinstance(method, str):
        raise TypeError(
            f"method must be a method object, got the string {method!r}; write lo.landing(), "
            'lo.landing(step=0.1), lo.pymanopt("ConjugateGradient"), ... (`landingopt methods` lists '
            "them)"
        )
    if isinstance(method, Method) or callable(getattr(method, "drive", None)):
        return method
    if callable(method):
        raise TypeError(f"method must be a method object: call it, lo.{method.__name__}(...)")
    raise TypeError(f"method must be a method such as lo.landing(), got {method!r}")


def start(problem: Problem, x0: Any, rng: np.random.Generator) -> Variable:
    """A validated start in the user's form, or a random one."""
    shape, constraint = problem.shape, problem.constraint
    if x0 is None:
        like = getattr(problem, "like", None)
        like = np.empty(()) if like is None else like
        return _map_shapes(lambda s, c, _: _random_block(s, c, like, rng), shape, constraint, None)
    if isinstance(shape, Mapping) and (not isinstance(x0, Mapping) or set(x0) != set(shape)):
        raise TypeError(f"x0 must be a dict with the blocks {list(shape)}, got {_describe(x0)}")
    blocks = isinstance(shape, tuple) and isinstance(shape[0], tuple)
    if blocks and (not isinstance(x0, (tuple, list)) or len(x0) != len(shape)):
        raise TypeError(f"x0 must be a tuple of {len(shape)} blocks, got {_describe(x0)}")
    x0 = tuple(x0) if blocks else x0
    checked = _map_shapes(_checked_block, shape, constraint, x0)
    arrays = list(checked.values()) if isinstance(checked, dict) else checked
    if isinstance(arrays, (list, tuple)):
        for other in arrays[1:]:
            same = (
                _xp.namespace(other) is _xp.namespace(arrays[0])
                and other.dtype == arrays[0].dtype
                and _xp.device_of(other) == _xp.device_of(arrays[0])
            )
            if not same:
                raise TypeError(
                    "the blocks of x0 must share library, dtype and device; got "
                    + ", ".join(f"{_xp.dtype_name(a)} on {_xp.device_of(a)}" for a in arrays)
                )
    _check_like(problem, arrays[0] if isinstance(arrays, (list, tuple)) else arrays)
    return checked


def _check_like(problem: Problem, x0: Array) -> None:
    """The start and the problem's data must live together."""
    like = getattr(problem, "like", None)
    own = isinstance(problem, (Objective, FiniteSum, Stream))
    if own or like is None or not hasattr(like, "dtype"):
        return  # a user's functions may convert at their own door
    if (
        _xp.namespace(like) is not _xp.namespace(x0)
        or _xp.device_of(like) != _xp.device_of(x0)
        or _xp.dtype_name(like) != _xp.dtype_name(x0)
    ):
        raise TypeError(
            f"x0 is {_xp.dtype_name(x0)} of {_xp.library(x0)} on {_xp.device_of(x0)}; the "
            f"problem's data are {_xp.dtype_name(like)} of {_xp.library(like)} on "
            f"{_xp.device_of(like)}. Nothing is moved or cast silently: convert one of them"
        )


def _map_shapes(function: Callable[..., Any], shape: Any, constraint: Any, x: Any) -> Any:
    if isinstance(shape, Mapping):
        return {k: function(shape[k], constraint[k], None if x is None else x[k]) for k in shape}
    if isinstance(shape[0], tuple):
        return tuple(
            function(s, c, None if x is None else x[i])
            for i, (s, c) in enumerate(zip(shape, constraint, strict=True))
        )
    return function(shape, constraint, x)


def _random_block(shape: Any, constraint: Any, like: Array, rng: np.random.Generator) -> Array:
    if isinstance(constraint, Stiefel):
        return stiefel.random(shape[-2], shape[-1], stack=shape[:-2], rng=rng, like=like)
    return _xp.from_host(np.zeros(shape), like)


def _checked_block(shape: tuple[int, ...], constraint: Any, x: Any) -> Array:
    if isinstance(x, (list, float, int)):
        raise TypeError(f"x0 must be an array, got {type(x).__name__}; numpy.asarray(x0) makes one")
    _xp.namespace(x)
    _xp.check_floating(x, "x0")
    if tuple(x.shape) != tuple(shape):
        hint = ""
        if len(shape) >= 2 and tuple(x.shape) == (*shape[:-2], shape[-1], shape[-2]):
            hint = "; it is the transposed shape: pass x0.T (for a stack, swap the last two axes)"
        raise ValueError(f"x0 has shape {tuple(x.shape)}, the problem needs {tuple(shape)}{hint}")
    if not _xp.all_finite(x):
        host = _xp.to_host(x)
        raise ValueError(
            f"x0 has {int(np.size(host) - np.isfinite(host).sum())} entries that are not finite"
        )
    return x


def _describe(x: Any) -> str:
    if isinstance(x, Mapping):
        return f"a dict with {list(x)}"
    if hasattr(x, "shape"):
        return f"an array of shape {tuple(x.shape)}"
    return f"{type(x).__name__}"


def stop_rule(
    stop: Any, tol: float | None, oracle: Oracle, stochastic: bool = False
) -> tuple[Any, str]:
    """The rule that ends the run, and a note where a limit had to be added."""
    space, unit = oracle.space, oracle.space.unit_roundoff
    if hasattr(oracle.problem, "grad_batch"):
        if tol is not None:
            raise ValueError(
                f"tol = {tol!r} was given for a stream, whose gradient norm is not known; the run "
                "ends with the stream, or by stop=lo.MaxIterations(...) or lo.Timeout(...)"
            )
        _check_stream_rule(stop)
        return (MaxEpochs(math.inf) if stop is None else check_rule(stop)), ""
    if stop is None and tol is None and stochastic:
        return MaxEpochs(_DEFAULT_EPOCHS), ""
    if stop is None:
        tolerance = max(1e-6, 100.0 * unit) if tol is None else tol
        if not (isinstance(tolerance, numbers.Real) and 0.0 <= tolerance < math.inf):
            raise ValueError(f"tol must be a number >= 0, got {tol!r}")
        distance = Distance(max(1e-8, 4.0 * unit * math.sqrt(space.size_p)))
        limit = MaxEpochs(_TOL_EPOCHS) if stochastic else MaxIterations(_DEFAULT_LIMIT)
        return (GradientNorm(rtol=tolerance) & distance) | limit, ""
    if tol is not None:
        raise ValueError(
            "tol is part of the default stop rule; with stop= write it there: "
            f"lo.GradientNorm(rtol={tol!r}) | ..."
        )
    rule = check_rule(stop)
    if rule.limits:
        return rule, ""
    if stochastic:
        note = f" No limit was given, so MaxEpochs({_DEFAULT_EPOCHS}) was added."
        return rule | MaxEpochs(_DEFAULT_EPOCHS), note
    note = f" No limit was given, so MaxIterations({_DEFAULT_LIMIT}) was added."
    return rule | MaxIterations(_DEFAULT_LIMIT), note


def _check_stream_rule(rule: Any) -> None:
    """Refuse rules that a stream can never meet."""
    for part in (getattr(rule, "first", None), getattr(rule, "second", None)):
        if part is not None:
            _check_stream_rule(part)
    if isinstance(rule, (MaxEpochs, GradientNorm, Target)):
        raise ValueError(
            f"{rule!r} can never be met on a stream: it has no epochs, and f and its gradient are not "
            "known as a whole; use lo.MaxIterations(...) or lo.Timeout(...)"
        )


def checked_record(record: Any, space: Space, stochastic: bool = False) -> Record:
    if record is None and stochastic:
        return EveryEpoch()
    if record is None:
        return Every(50) if space.accelerator else Every(1)
    if isinstance(record, type) or not callable(getattr(record, "next", None)):
        raise TypeError(
            f"record must be lo.Every(k), lo.EveryEpoch() or lo.LogSpaced(...), got {record!r}"
        )
    return record


def checked_callback(callback: Any) -> Any:
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of the row, got {callback!r}")
    return callback


def look_at_stack(oracle: Oracle, x0: Variable) -> None:
    """One value for all, or one for each matrix? f is evaluated once, uncounted, to see."""
    if not oracle.has_value:
        return
    x = _xp.readonly(_xp.copy(x0))
    with oracle.uncounted():
        if getattr(oracle.problem, "fun_terms", None) is not None:  # one term tells as much
            value = oracle.problem.fun_terms(x, slice(0, 1))  # type: ignore[attr-defined]
        else:
            value = oracle.fun(x) if oracle.fun is not None else oracle.pair(x)[0]
    oracle._check_value(value)
    if tuple(getattr(value, "shape", ())) == oracle.space.blocks[0].batch:
        oracle.space.separate()


def look_at_sum(oracle: Oracle, x0: Variable) -> None:
    """Is the gradient over some terms the mean of theirs? Three are evaluated, uncounted, to see."""
    n_terms = oracle.n_terms
    if oracle.grad_terms is None or n_terms is None:
        return
    space = oracle.space
    x = space.map(lambda a: _xp.readonly(_xp.copy(a)), x0)
    chosen = np.unique([0, n_terms // 2, n_terms - 1])
    with oracle.uncounted():
        try:
            together = [_xp.copy(g) for g in oracle.gradient_terms(x, chosen)]
            each = [
                [_xp.copy(g) for g in oracle.gradient_terms(x, slice(int(i), int(i) + 1))]
                for i in chosen
            ]
        except IndexError as error:
            raise ValueError(
                f"n_terms = {n_terms}, but the gradient of the terms {chosen.tolist()} failed "
                f"({error}): n_terms must be the number of terms that the data has"
            ) from error
    for i, block in enumerate(space.blocks):
        k = block.kernels
        mean = each[0][i]
        for other in each[1:]:
            mean = k.add(mean, other[i])
        mean = k.scale(mean, 1.0 / len(each))
        size, apart = _largest(k, mean), _largest(k, k.subtract(together[i], mean))
        if apart > 1e4 * space.unit_roundoff * max(size, _largest(k, each[0][i])):
            ratio = _largest(k, together[i]) / size if size else math.inf
            hint = (
                " It looks like their sum: divide by the number of terms."
                if abs(ratio - len(each)) < 1e-3 * len(each)
                else ""
            )
            linear = hasattr(oracle.problem, "slopes")
            whose = (
                "dphi(u, terms) must return each term's own gradient, and grad(x, terms)"
                if linear
                else "grad(x, terms)"
            )
            raise ValueError(
                f"the gradient over the terms {chosen.tolist()} is not the mean of theirs (it differs "
                f"by {apart:.3g}, the mean's norm is {size:.3g}).{hint} {whose} must return the mean "
                "over terms, which may be a slice or an array of indices"
            )


def _largest(kernels: Any, a: Array) -> float:
    return float(np.max(kernels.host(kernels.norm(a))[0]))


def same(component: Any, given: Any) -> bool:
    return not isinstance(component, str) and bool(np.all(np.asarray(component) == given))


def sign_of(x0: Array, component: Any) -> Any:
    """The component of x0 (per matrix), or the error that there is only one."""
    here = stiefel.component(x0)
    if here is None:
        raise ValueError(
            f"component = {component!r} was given, but x of shape {tuple(x0.shape)} and dtype "
            f"{_xp.dtype_name(x0)} lives in one connected set (only real square matrices fall into "
            "two, by the sign of det x); drop component"
        )
    return here


def in_component(x0: Variable, component: Any) -> Variable:
    """x0, or its reflection, in the wanted component of O_p."""
    if isinstance(x0, tuple) and isinstance(component, tuple) and len(component) == len(x0):
        # From a problem of several blocks: one entry for each, None where it says nothing.
        return tuple(x if c is None else in_component(x, c) for x, c in zip(x0, component))
    if isinstance(x0, (Mapping, tuple)):
        raise ValueError("component is for one array, not for products of blocks")
    sign = np.asarray(_xp.to_host(component) if hasattr(component, "dtype") else component)
    here = sign_of(x0, component)
    if sign.dtype.kind not in "iuf" or not np.all(np.isin(sign, (1, -1))):
        raise ValueError(f'component must be +1, -1, "both" or None, got {component!r}')
    if sign.shape not in ((), np.shape(here)):
        raise ValueError(f"component has shape {sign.shape}; needed is () or {np.shape(here)}")
    change = np.broadcast_to(np.asarray(here) != sign, np.shape(here))
    if not np.any(change):
        return x0
    flipped = stiefel.reflected(x0)
    return _xp.kernels(x0, tuple(x0.shape[:-2])).select(
        bool(change) if change.ndim == 0 else change, flipped, x0
    )
