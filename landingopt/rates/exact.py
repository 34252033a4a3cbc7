r"""Exact laws: what a run of the landing must do, to the digit, and whether it does.

A rate O(1/T) is an upper bound, which a wrong factor passes. These are equalities (POGO's is a bound
without unknown constants): a step or a weight that is 10 % off breaks them.

====================================  ==================================================================
law                                   predicted by, checked by
====================================  ==================================================================
the geometric rate at the optimum     :func:`local_factors`, :func:`check_local_factors`
the noise floor of constant steps     :func:`noise_floor`, :func:`check_noise_floor`
Newton–Schulz squares the distance    :func:`newton_schulz_decay`, :func:`check_newton_schulz`
the flow's Gram matrix is logistic    :func:`flow_gram`, :func:`check_flow`
POGO's distance                       :func:`pogo_bound`, :func:`check_pogo_bound`
singular values where f is constant   :func:`penalty_decay`, :func:`check_penalty`
====================================  ==================================================================

:func:`check_exact_laws` runs them all on small random problems. Notation: Delta = X^H X - I, d =
||Delta||_F, N = d^2 / 4, R the tangent term with its metric scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from landingopt import fields, methods, retractions, stiefel
from landingopt.methods import Method
from landingopt.problems import PCA, Procrustes
from landingopt.rates.evidence import Evidence
from landingopt.rates.factors import (
    LocalFactors,
    MeasuredFactor,
    check_local_factors,
    curvatures,
    local_factors,
    measured_factor,
    scales_of,
)
from landingopt.rates.noise import NoiseFloor, check_noise_floor, noise_floor
from landingopt.rates.normal import (
    check_flow,
    check_newton_schulz,
    check_penalty,
    check_pogo_bound,
    flow_gram,
    newton_schulz_decay,
    penalty_decay,
    pogo_bound,
)
from landingopt.samplers import WithReplacement
from landingopt.sums import FiniteSum

__all__ = [
    "LocalFactors",
    "MeasuredFactor",
    "NoiseFloor",
    "check_exact_laws",
    "check_flow",
    "check_local_factors",
    "check_newton_schulz",
    "check_noise_floor",
    "check_penalty",
    "check_pogo_bound",
    "flow_gram",
    "local_factors",
    "measured_factor",
    "newton_schulz_decay",
    "noise_floor",
    "penalty_decay",
    "pogo_bound",
]


def check_exact_laws(quick: bool = False, rng: Any = 0) -> list[Evidence]:
    """All exact laws on small random problems: a table for the command line.

    Parameters
    ----------
    quick : bool
        About 3 s in place of 10: fewer problems, and shorter runs.
    rng : seed or Generator

    Returns
    -------
    list of Evidence
        For :func:`landingopt.rates.evidence.evidence_table`.

    Examples
    --------
    >>> from landingopt.rates.evidence import evidence_table
    >>> print(evidence_table(check_exact_laws(quick=True)))  # doctest: +SKIP
    """
    generator = np.random.default_rng(rng)
    lines: list[Evidence] = []
    for problem, method, component in _local_cases(quick, generator):
        lines += check_local_factors(problem, method, component=component, rng=generator)
    x0 = _off(7, 4, 0.4, np.complex128, generator)
    procrustes = _procrustes(7, 4, np.complex128, generator)
    step = float(0.5 / np.linalg.norm(procrustes.grad(x0)))
    lines += check_newton_schulz(x0)
    lines += check_penalty(1.5 * x0, step=0.1, lam=3.0)
    lines += check_flow(procrustes, x0, lam=1.0 / step, time=step, iterations=100 if quick else 400)
    lines += check_pogo_bound(procrustes, x0, methods.pogo(step))
    return lines + check_noise_floor(
        *_noisy(generator),
        iterations=6_000 if quick else 20_000,
        tolerance=0.08 if quick else 0.05,
        rng=generator,
    )


def _local_cases(quick: bool, rng: np.random.Generator) -> Iterator[tuple[Any, Method, int | None]]:
    """(problem, method, component): every method, tangent term, kind of number and shape once."""
    square = _procrustes(5, 5, np.float64, rng)
    tall = _procrustes(7, 3, np.complex128, rng)
    spectrum = np.sort(rng.uniform(0.5, 2.5, 9)) + np.repeat([0.0, 1.0], [6, 3])
    pca = PCA.random(9, 3, spectrum=spectrum, rng=rng)
    canonical, euclidean, near = fields.Canonical(), fields.Euclidean(), fields.NearTangent()

    def short(problem: Any, tangent: Any, component: int | None = None) -> float:
        """A third of the step that solves the fastest direction at once."""
        rates, _ = curvatures(problem, scales_of(tangent), component, None)
        return float(f"{0.33 / rates.max():.2g}")

    eta = short(square, canonical, 1)
    yield square, methods.landing(eta, lam=0.5 / eta), 1
    eta = short(square, canonical, -1)
    # The normal term is the slow part: mu between q and 1.
    slow = local_factors(square, methods.landing(eta, lam=0.5 / eta), component=-1).gradient
    yield square, methods.landing(eta, lam=0.25 * (1.0 - slow) / eta), -1
    yield pca, methods.pogo(short(pca, canonical)), None
    if quick:
        return
    eta = short(tall, euclidean)
    yield tall, methods.landing(eta, lam=0.4 / eta, tangent=euclidean), None
    yield tall, methods.riemannian(retractions.Polar(), step=eta), None
    eta = short(pca, near)
    yield pca, methods.landing(eta, lam=0.3 / eta, tangent=near), None
    unitary = _procrustes(4, 4, np.complex128, rng)
    yield unitary, methods.pogo(short(unitary, canonical)), None
    yield pca, methods.riemannian(step=short(pca, euclidean)), None


def _procrustes(n: int, p: int, dtype: Any, rng: np.random.Generator) -> Procrustes:
    """B = X A + noise, with a moderate condition number, and a weight."""
    A = stiefel.random(2 * p, p, rng=rng, dtype=dtype).conj().T * np.linspace(1.0, 2.0, 2 * p)
    B = stiefel.random(n, p, rng=rng, dtype=dtype) @ A
    B = B + 0.1 * stiefel.random(n, 2 * p, rng=rng, dtype=dtype)
    return Procrustes(A, B, weight=0.7)


def _off(n: int, p: int, distance: float, dtype: Any, rng: np.random.Generator) -> np.ndarray:
    """A point at this distance, all singular values different."""
    E = stiefel.random(p, rng=rng, dtype=dtype)
    E = E + E.conj().T
    S = np.eye(p) + E * (distance / np.linalg.norm(E))
    return np.asarray(stiefel.random(n, p, rng=rng, dtype=dtype) @ np.linalg.cholesky(S).conj().T)


def _noisy(rng: np.random.Generator) -> tuple[FiniteSum, Method, np.ndarray]:
    """A sum of linear terms, its optimum, and SGD whose plateau the law describes to 3 %.

    The noise is small against the curvature, so that the iterate stays near the optimum, and n is well
    above p, so that R_i^H R_i varies little and a short run tells its mean.
    """
    n, p, count = 12, 2, 60
    signal = stiefel.random(n, p, rng=rng) * np.array([2.0, 1.0])
    T = signal + 0.2 * rng.standard_normal((count, n, p))

    def mean(terms: Any) -> np.ndarray:
        return np.asarray(T[terms].mean(axis=0))

    problem = FiniteSum(
        lambda x, terms: -float(np.vdot(mean(terms), x)),
        lambda x, terms: -mean(terms),
        n_terms=count,
        shape=(n, p),
    )
    method = methods.landing_sgd(
        0.01, lam=5.0, batch_size=1, sampler=WithReplacement(), tangent=fields.Canonical()
    )
    return problem, method, stiefel.polar(mean(slice(None)))
