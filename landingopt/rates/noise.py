"""The noise floor of SGD with a constant step: predicted, measured, compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from landingopt import estimators, fields, moves, steps, stiefel
from landingopt._minimize import minimize
from landingopt._xp import Array
from landingopt.methods import Method
from landingopt.observe.record import EveryEpoch
from landingopt.observe.stop import MaxIterations
from landingopt.rates.constants import wide
from landingopt.rates.evidence import Evidence
from landingopt.rates.factors import constant_step, refuse_part, scales_of
from landingopt.samplers import WithReplacement
from landingopt.searches import OpenLoop

_SAMPLES = 2_000  # draws of a minibatch for the spread of its Gram matrix


@dataclass(frozen=True)
class NoiseFloor:
    """Where constant steps end: the prediction of :func:`noise_floor`.

    Attributes
    ----------
    delta : array (p, p)
        E Delta = eta / (2 lam) Q.
    infeasibility : float
        E N = E ||Delta||^2 / 4.
    second_moment : array (p, p)
        Q = E[R_i^H R_i].
    spread : float
        V = E ||R_i^H R_i - Q||^2.
    """

    delta: np.ndarray
    infeasibility: float
    second_moment: np.ndarray
    spread: float


def noise_floor(problem: Any, method: Any, x: Array, *, rng: Any = 0) -> NoiseFloor:
    r"""Mean distance on the plateau of constant-step landing SGD near x, with independent samples.

    To leading order in eta, with the tangent term R_i of a minibatch's gradient,

        E Delta = eta / (2 lam) Q,    Q = E[R_i^H R_i],
        E N = eta^2 / (16 lam^2) (||Q||^2 + eta lam / (1 - eta lam) V),    V = E ||R_i^H R_i - Q||^2:

    the stationary mean and variance of Delta_+ = (1 - 2 eta lam) Delta + eta^2 R_i^H R_i. What is left
    out, the wandering of the iterate about x and Delta^2, is O(eta) of it. N has slope 2 in eta and -2
    in lam while eta lam << 1.

    Parameters
    ----------
    problem : FiniteSum, LinearModelSum or one of ``lo.problems`` with terms
        One matrix; each term's gradient is evaluated once.
    method : Method
        ``lo.landing_sgd(step=<number>, batch_size=..., sampler=lo.samplers.WithReplacement())``.
    x : array (n, p)
        The optimum, about; its polar factor is what is used.
    rng : seed or Generator
        For V of more than one term a step, which is a mean over 2000 draws. Q is exact.

    Returns
    -------
    NoiseFloor

    Raises
    ------
    TypeError
        A problem without terms, another method; the message says what is needed.
    ValueError
        lam = 0, where there is no plateau, or eta lam > 1/2, where the safe step is shorter.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.SampledPCA.random(200, 6, 2, rng=0)
    >>> method = lo.landing_sgd(
    ...     step=0.01, lam=2.0, batch_size=1, sampler=lo.samplers.WithReplacement()
    ... )
    >>> floor = noise_floor(problem, method, problem.optimum()[0])
    >>> floor.delta.shape, 0.0 < floor.infeasibility < 1e-4
    ((2, 2), True)
    """
    eta, lam, size = _sampled(method)
    if not hasattr(problem, "grad_terms") or len(problem.shape) != 2:
        raise TypeError(
            "the noise floor needs a finite sum over one matrix, such as lo.FiniteSum(fun, grad, "
            f"n_terms=..., shape=(n, p)); got {type(problem).__name__}"
        )
    a, b = scales_of(method.field.tangent)
    x = stiefel.polar(x)
    host = wide(x)
    R = []
    for i in range(problem.n_terms):
        G = wide(problem.grad_terms(x, slice(i, i + 1)))
        M = host.conj().T @ G
        R.append(host @ (0.5 * a * (M - M.conj().T) - b * M) + b * G)
    terms = np.array(R)
    if size == 1:
        grams = terms.conj().mT @ terms
        Q = grams.mean(axis=0)
    else:
        mean = terms.mean(axis=0)
        around = np.mean((terms - mean).conj().mT @ (terms - mean), axis=0)
        Q = mean.conj().T @ mean + around / size
        draws = np.random.default_rng(rng).integers(problem.n_terms, size=(_SAMPLES, size))
        batches = terms[draws].mean(axis=1)
        grams = batches.conj().mT @ batches
    V = float(np.mean(np.sum(np.abs(grams - Q) ** 2, axis=(1, 2))))
    square = float(np.linalg.norm(Q)) ** 2
    N = eta**2 / (16.0 * lam**2) * (square + eta * lam / (1.0 - eta * lam) * V)
    return NoiseFloor(0.5 * eta / lam * Q, N, Q, V)


def _sampled(method: Any) -> tuple[float, float, int]:
    """(eta, lam, batch size) of constant-step SGD with independent samples."""
    needed = (
        "the noise floor is of lo.landing_sgd(step=<number>, lam=..., batch_size=..., "
        "sampler=lo.samplers.WithReplacement())"
    )
    estimator = getattr(method, "estimator", None)
    if not isinstance(estimator, estimators.MiniBatch):
        raise TypeError(f"{needed}, got {getattr(method, 'name', method)!s:.80}")
    if estimator.sampler != WithReplacement() or estimator.batch_size is None:
        raise TypeError(f"{needed}: the samples must be independent; got {estimator!r}")
    eta = constant_step(method)
    landing = isinstance(method.move, moves.Additive) and isinstance(
        method.field.normal, fields.Penalty
    )
    refuse_part(method, not landing, "move")
    lam = method.lam
    if not 0.0 < eta * lam <= 0.5:
        raise ValueError(
            f"eta lam = {eta * lam:g}: between 0 (where the distance grows for ever) and 1/2 (beyond, "
            "the safe step is shorter) there is a noise floor"
        )
    return eta, lam, estimator.batch_size


def check_noise_floor(
    problem: Any,
    method: Any,
    x: Array,
    *,
    floor: NoiseFloor | None = None,
    iterations: int = 20_000,
    tolerance: float = 0.05,
    rng: Any = 0,
) -> list[Evidence]:
    """Run constant-step SGD from x, and compare its plateau with :func:`noise_floor`.

    Three runs: as given, with half of the step, and with twice the lam. The first tenth, and 5 / (eta
    lam) steps at least, are left out of the means.

    Parameters
    ----------
    problem, method, x
        As for :func:`noise_floor`; eta lam must be small (0.05 adds a few percent to the slopes).
    floor : NoiseFloor, optional
        What to hold the first run against, in place of the prediction.
    iterations : int
        Of each run. The mean has about 2 eta lam ``iterations`` independent samples.
    tolerance : float
        Relative: statistics and what the law leaves out.
    rng : seed

    Returns
    -------
    list of Evidence
        N, the matrix E Delta (as ||error|| / ||law||), and the slopes of N in eta and lam.

    Raises
    ------
    TypeError, ValueError
        As :func:`noise_floor`, and a ValueError where a safe step cut the steps, or where nothing would
        be left to average.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.SampledPCA.random(50, 6, 1, rng=0)
    >>> method = lo.landing_sgd(
    ...     step=0.005, lam=10.0, batch_size=1, sampler=lo.samplers.WithReplacement()
    ... )
    >>> lines = check_noise_floor(problem, method, problem.optimum()[0], iterations=3000, tolerance=0.2)
    >>> [line.holds for line in lines]
    [True, True, True, True]
    """
    law = noise_floor(problem, method, x) if floor is None else floor
    eta, lam, _ = _sampled(method)
    x = stiefel.polar(x)
    N, delta = _plateau(problem, method, x, iterations, rng)
    half, _ = _plateau(problem, _with(method, 0.5 * eta, lam), x, iterations, rng)
    twice, _ = _plateau(problem, _with(method, eta, 2.0 * lam), x, iterations, rng)
    off = float(np.linalg.norm(delta - law.delta) / np.linalg.norm(law.delta))
    note = f"{iterations} steps"
    return [
        Evidence.law(f"noise floor N, {method.name}", N, law.infeasibility, tolerance, note),
        Evidence.bound(f"noise floor E Delta, relative error, {method.name}", off, tolerance, note),
        Evidence.law("slope of N in eta", math.log2(N / half), 2.0, tolerance, note),
        Evidence.law("slope of N in lam", math.log2(twice / N), -2.0, tolerance, note),
    ]


def _with(method: Method, eta: float, lam: float) -> Method:
    rule: Any = method.search.step
    constant = steps.Constant(eta)
    rule = replace(rule, rule=constant) if isinstance(rule, steps.Safeguarded) else constant
    field = replace(method.field, normal=fields.Penalty(lam))
    return replace(method, search=OpenLoop(rule), field=field)


def _plateau(
    problem: Any, method: Method, x: Array, iterations: int, rng: Any
) -> tuple[float, np.ndarray]:
    """Means of N and Delta over a run, its beginning left out."""
    eta, lam, size = _sampled(method)
    burn = max(math.ceil(5.0 / (eta * lam)), iterations // 10)
    if burn > iterations // 2:
        raise ValueError(
            f"{iterations} iterations are too few: the plateau is reached after about {burn}"
        )
    total, squares, count = np.zeros((1, 1)), 0.0, 0

    def look(row: Any) -> None:
        nonlocal total, squares, count
        if row.iteration <= burn:
            return
        host = wide(row.x)
        delta = host.conj().T @ host - np.eye(host.shape[1])
        total, squares, count = total + delta, squares + np.linalg.norm(delta) ** 2, count + 1

    result = minimize(
        problem,
        x,
        method,
        stop=MaxIterations(iterations),
        record=EveryEpoch(size / problem.n_terms, full=False),
        callback=look,
        rng=rng,
    )
    uncut(result, eta)
    return float(squares / count / 4.0), total / count


def uncut(result: Any, eta: float) -> None:
    """The laws are of constant steps."""
    taken = result.trace["step"][1:]
    cut = np.mean(taken < eta * (1.0 - 1e-12))
    if cut:
        raise ValueError(
            f"the safe step cut {100.0 * cut:.2g} % of the steps {eta:g}, to {taken.min():g} at the "
            "least: take a shorter step"
        )
