"""The exact laws: they hold on asymmetric random data, and what is a little wrong breaks them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import landingopt as lo
from landingopt.problems import PCA, Procrustes, SampledPCA
from landingopt.rates import exact
from landingopt.rates.evidence import Evidence, evidence_table
from landingopt.rates.exact import (
    LocalFactors,
    check_exact_laws,
    check_flow,
    check_local_factors,
    check_newton_schulz,
    check_noise_floor,
    check_penalty,
    check_pogo_bound,
    flow_gram,
    local_factors,
    measured_factor,
    newton_schulz_decay,
    noise_floor,
    penalty_decay,
    pogo_bound,
)
from landingopt.rates.factors import _Neighbourhood

REAL, COMPLEX = np.float64, np.complex128
CANONICAL, EUCLIDEAN, NEAR = lo.fields.Canonical(), lo.fields.Euclidean(), lo.fields.NearTangent()


def gaussian(rng, shape, dtype):
    draw = rng.standard_normal(shape)
    return draw if dtype is REAL else draw + 1j * rng.standard_normal(shape)


def procrustes(rng, n, p, dtype=REAL, weight=0.7):
    """B = X (Gaussian A) + noise: nothing symmetric, and moderately conditioned."""
    A = gaussian(rng, (p, 4 * p), dtype) / 2.0
    B = lo.stiefel.random(n, p, rng=rng, dtype=dtype) @ A + 0.2 * gaussian(rng, (n, 4 * p), dtype)
    return Procrustes(A, B, weight=weight)


def off_manifold(rng, n, p, dtype=REAL, distance=0.4):
    E = gaussian(rng, (p, p), dtype)
    E = E + E.conj().T
    x = lo.stiefel.random(n, p, rng=rng, dtype=dtype)
    return x @ np.linalg.cholesky(np.eye(p) + distance * E / np.linalg.norm(E)).conj().T


def naive_rates(problem, turn, tilt, component=None):
    """The Hessian's eigenvalues, entry by entry as they are written in the papers."""
    if isinstance(problem, PCA):
        values = np.sort(np.linalg.eigvalsh(-problem.grad(np.eye(problem.shape[0]))))[::-1]
        p = problem.shape[1]
        return [tilt * (a - b) for a in values[:p] for b in values[p:]]
    n, p = problem.shape
    u, s, vh = np.linalg.svd(problem.B @ problem.A.conj().T, full_matrices=False)
    if component is not None and np.sign(np.linalg.det(u @ vh)) != component:
        s[-1] = -s[-1]
    diagonal = np.iscomplexobj(u)
    w = problem.weight
    rates = [
        turn * w * (s[i] + s[j])
        for i in range(p)
        for j in range(p)
        if i < j or (i == j and diagonal)
    ]
    return rates + ([2.0 * tilt * w * a for a in s] if n > p else [])


# name: (tangent, a, b) with R = a X skew(X^H G) + b (I - X X^H) G on the manifold
TANGENTS = {
    "the papers' R": (CANONICAL, 1.0, 0.5),
    "canonical": (lo.fields.Canonical(1.0), 2.0, 1.0),
    "Euclidean": (EUCLIDEAN, 1.0, 1.0),
    "near tangent": (lo.fields.NearTangent(0.6), 0.6, 0.6),
    "beta": (lo.fields.BetaMetric(0.3, 0.8), 0.8 / 0.3, 0.8),
}

SHAPES = {
    "det +1": (5, 5, REAL, 1),
    "det -1": (5, 5, REAL, -1),
    "unitary": (4, 4, COMPLEX, None),
    "tall": (7, 3, REAL, None),
    "tall complex": (6, 3, COMPLEX, None),
}


# -- local factors: the closed form -----------------------------------------------------------


def jacobian(problem, method, x):
    """Of one step of the library at x, by central differences, as a real matrix."""
    columns, t = [], 1e-5

    def after(y):
        return lo.minimize(problem, y, method, stop=lo.MaxIterations(1), record=lo.Every(1)).x

    units = (1.0, 1j) if np.iscomplexobj(x) else (1.0,)
    for unit in units:
        for index in np.ndindex(x.shape):
            v = np.zeros_like(x)
            v[index] = unit * t
            change = (after(x + v) - after(x - v)).ravel() / (2.0 * t)
            columns.append(np.concatenate([change.real, change.imag][: len(units)]))
    return np.array(columns).T


@pytest.mark.parametrize("tangent", TANGENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_factors_are_the_eigenvalues_of_one_step(rng, shape, tangent):
    """All of them: 1 - eta r in the tangent directions, 1 - 2 eta lam in the normal ones."""
    n, p, dtype, component = SHAPES[shape]
    tangent, a, b = TANGENTS[tangent]
    problem = procrustes(rng, n, p, dtype)
    rates = np.array(naive_rates(problem, a, b, component))
    eta = 0.4 / rates.max()
    method = lo.landing(step=eta, lam=0.3 / eta, tangent=tangent)
    x, _ = problem.optimum(component)
    found = np.linalg.eigvals(jacobian(problem, method, x))
    normal = p * p if dtype is COMPLEX else p * (p + 1) // 2
    tilted = (n - p) * (2 if dtype is COMPLEX else 1)
    turned = rates[: rates.size - (p if n > p else 0)]
    expected = np.concatenate(
        [
            np.full(normal, 0.4),
            np.repeat(1.0 - eta * turned, 1),
            np.tile(1.0 - eta * rates[turned.size :], tilted),
        ]
    )
    if dtype is COMPLEX:  # i < j has a real and an imaginary part
        pairs = [i < j for i in range(p) for j in range(i, p)]
        expected = np.concatenate([expected, (1.0 - eta * turned)[pairs]])
    assert found.size == expected.size
    # Delta turns into tangent parts, so the matrix is not normal: eigenvalues to 1e-6, not 1e-10.
    assert np.max(np.abs(np.sort(found.real) - np.sort(expected))) <= 2e-6
    assert np.max(np.abs(found.imag)) <= 1e-4
    factors = local_factors(problem, method, component=component)
    q = np.max(np.abs(1.0 - eta * rates))
    assert factors.gradient == pytest.approx(max(q, 0.4), rel=1e-12)
    assert factors.gap == pytest.approx(max(q, 0.4) ** 2, rel=1e-12)
    assert factors.distance == pytest.approx(max(q**2, 0.4), rel=1e-12)
    assert factors.stable


def test_where_it_is_stable(rng):
    """MATH's limits: 2 / (s_1 + s_2), complex 1 / s_1, and eta lam < 1."""
    for dtype in (REAL, COMPLEX):
        problem = procrustes(rng, 4, 4, dtype, weight=1.0)
        s = np.linalg.svd(problem.B @ problem.A.conj().T, compute_uv=False)
        limit = 2.0 / (s[0] + s[1]) if dtype is REAL else 1.0 / s[0]
        for share, stable in ((0.99, True), (1.01, False)):
            method = lo.landing(step=share * limit, lam=0.4 / limit)
            assert local_factors(problem, method).stable is stable
    assert not local_factors(problem, lo.landing(step=0.5 * limit, lam=0.0)).stable


def test_the_component_is_that_of_the_start(rng):
    problem = procrustes(rng, 4, 4)
    method = lo.landing(step=1e-3)
    for component in (1, -1):
        x0 = lo.stiefel.random(4, rng=rng)
        x0 = x0 if lo.stiefel.component(x0) == component else lo.stiefel.reflected(x0)
        expected = local_factors(problem, method, component=component)
        assert local_factors(problem, method, x0=x0) == expected
    best = lo.stiefel.component(problem.optimum()[0])
    assert local_factors(problem, method) == local_factors(problem, method, component=best)
    other = local_factors(problem, method, component=-best)
    assert local_factors(problem, method).gap < other.gap


def test_a_long_step_is_what_the_safe_step_makes_of_it(rng):
    problem = procrustes(rng, 4, 4)
    rates = naive_rates(problem, 1.0, 0.5)
    eta = 0.2 / max(rates)
    capped = local_factors(problem, lo.landing(step=4.0 * eta, lam=0.5 / eta))
    assert capped == local_factors(problem, lo.landing(step=eta, lam=0.5 / eta))
    free = lo.Method(
        lo.searches.OpenLoop(lo.steps.Constant(eta)),
        lo.fields.Field(CANONICAL, lo.fields.Penalty(0.9 / eta)),
    )
    assert local_factors(problem, free).distance == pytest.approx(
        max(0.8, capped.gradient**2), rel=1e-12
    )


# -- local factors: the runs ------------------------------------------------------------------


def scaled(problem, tangent, share, component=None):
    """The step share / (largest rate)."""
    _, a, b = next(entry for entry in TANGENTS.values() if entry[0] == tangent)
    return share / max(naive_rates(problem, a, b, component))


def broken(lines, factors):
    """Are f-gap and gradient both off the rates of other factors, by more than any tolerance?"""
    others = (factors.gap, factors.gradient)
    return not any(
        Evidence.law("", line.measured, -math.log(factor), 0.05)
        for line, factor in zip(lines, others, strict=False)
    )


def close(lines, count):
    assert len(lines) == count
    for line in lines:
        assert line.holds, evidence_table([line])
        assert abs(line.ratio - 1.0) <= 0.01, evidence_table([line])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tangent", ["the papers' R", "Euclidean", "near tangent"])
def test_procrustes_runs_obey(rng, shape, tangent):
    n, p, dtype, component = SHAPES[shape]
    problem, tangent = procrustes(rng, n, p, dtype), TANGENTS[tangent][0]
    eta = scaled(problem, tangent, 0.5, component)
    method = lo.landing(step=eta, lam=0.45 / eta, tangent=tangent)
    close(check_local_factors(problem, method, component=component, rng=rng), 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_runs_that_the_normal_term_limits(rng, shape):
    """mu > q: the f-gap of Procrustes falls by mu^2 then, and not by q^2."""
    n, p, dtype, component = SHAPES[shape]
    problem = procrustes(rng, n, p, dtype)
    eta = scaled(problem, CANONICAL, 0.4, component)
    q = local_factors(problem, lo.landing(step=eta, lam=0.5 / eta), component=component).gradient
    mu = 0.5 * (1.0 + q)
    method = lo.landing(step=eta, lam=0.5 * (1.0 - mu) / eta)
    factors = local_factors(problem, method, component=component)
    assert factors.gap == pytest.approx(mu**2) and factors.distance == pytest.approx(mu)
    lines = check_local_factors(problem, method, component=component, rng=rng)
    close(lines, 3)
    assert broken(lines, LocalFactors(q**2, mu, q))


def test_runs_that_the_normal_term_half_limits(rng):
    """q^2 < mu < q: the distance feels it alone."""
    problem = procrustes(rng, 6, 3)
    eta = scaled(problem, CANONICAL, 0.3)
    q = local_factors(problem, lo.landing(step=eta, lam=0.5 / eta)).gradient
    method = lo.landing(step=eta, lam=0.5 * (1.0 - q**1.5) / eta)
    factors = local_factors(problem, method)
    assert (factors.gradient, factors.distance) == pytest.approx((q, q**1.5))
    close(check_local_factors(problem, method, rng=rng), 3)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("lam", [0.45, 0.02])
def test_pca_runs_obey(rng, dtype, lam):
    """PCA's f does not feel the normal term, however slow it is."""
    problem = PCA.random(7, 2, spectrum=[4.0, 3.1, 1.9, 1.2, 1.1, 0.7, -0.3], rng=rng, dtype=dtype)
    eta = 0.4 / (0.5 * 4.3)
    method = lo.landing(step=eta, lam=lam / eta)
    factors = local_factors(problem, method)
    assert factors.gap == pytest.approx((1.0 - 0.5 * eta * 1.2) ** 2)
    close(check_local_factors(problem, method, rng=rng), 3)


def test_sampled_pca_is_pca(rng):
    problem = SampledPCA.random(40, 5, 2, spectrum=[4.0, 3.1, 1.9, 1.2, 0.5], rng=rng)
    same = PCA(problem.data, 2)
    method = lo.landing(step=0.2, lam=2.0, tangent=EUCLIDEAN)
    found, expected = local_factors(problem, method), local_factors(same, method)
    assert (found.gap, found.distance) == pytest.approx((expected.gap, expected.distance))
    close(check_local_factors(problem, method, rng=rng), 3)


@pytest.mark.parametrize("shape", ["det -1", "tall complex"])
def test_pogo_runs_obey(rng, shape):
    n, p, dtype, component = SHAPES[shape]
    problem = procrustes(rng, n, p, dtype)
    method = lo.pogo(scaled(problem, CANONICAL, 0.6, component))
    factors = local_factors(problem, method, component=component)
    assert factors.distance == pytest.approx(factors.gap**2)
    close(check_local_factors(problem, method, component=component, rng=rng), 3)
    # Another weight of the normal step is the landing's law with mu = |1 - 2 lam|.
    method = lo.pogo(method.search.step.step, lam=0.01)
    assert local_factors(problem, method, component=component).distance == pytest.approx(0.98)
    close(check_local_factors(problem, method, component=component, rng=rng), 3)


@pytest.mark.parametrize(
    "retraction",
    [
        lo.retractions.QR(),
        lo.retractions.CholeskyQR(),
        lo.retractions.Polar(),
        lo.retractions.Cayley(),
        lo.retractions.Exponential("canonical"),
    ],
    ids=lambda retraction: type(retraction).__name__,
)
def test_riemannian_runs_obey(rng, retraction):
    problem = procrustes(rng, 6, 3)
    method = lo.riemannian(retraction, step=scaled(problem, EUCLIDEAN, 0.4))
    assert math.isnan(local_factors(problem, method).distance)
    assert local_factors(problem, method).stable
    close(check_local_factors(problem, method, rng=rng), 2)


@pytest.mark.parametrize("off", [False, True], ids=["on the manifold", "off it"])
def test_one_column_and_two_by_two(rng, off):
    """p = 1 has no direction that mu could turn; in O(2) only a generic Delta does."""
    sphere = procrustes(rng, 5, 1)
    eta = scaled(sphere, CANONICAL, 0.2)
    assert local_factors(sphere, lo.landing(step=eta, lam=0.01 / eta)).gap == pytest.approx(0.64)
    circle = procrustes(rng, 2, 2)
    eta = scaled(circle, CANONICAL, 0.2)
    method = lo.landing(step=eta, lam=0.02 / eta)
    assert local_factors(circle, method).gap == pytest.approx(0.96**2)
    x0 = lo.stiefel.polar(circle.optimum()[0] + 0.1 * lo.stiefel.random(2, rng=rng))
    if off:
        x0 = x0 @ np.array([[1.01, 0.03], [0.03, 0.98]])
    best, gaps = circle.optimum()[1], []
    lo.minimize(
        circle, x0, method, stop=lo.MaxIterations(60), record=lo.Every(1),
        callback=lambda row: gaps.append(circle.fun(lo.stiefel.polar(row.x)) - best),
    )  # fmt: skip
    factor, _ = measured_factor(range(61), gaps, 1e-13)
    assert factor == pytest.approx(0.96**2 if off else 0.64, rel=0.01)


def test_the_gap_without_cancellation_is_the_gap(rng):
    """f(polar X) - f*, to the digits that the difference has."""
    problems = [procrustes(rng, 4, 4), procrustes(rng, 5, 2, COMPLEX), PCA.random(6, 2, rng=rng)]
    for problem, component in zip(problems, (-1, None, None), strict=True):
        near = _Neighbourhood(problem, component)
        x, best = problem.optimum(component)
        for t in (1e-1, 1e-3):
            side = lo.stiefel.random(*x.shape, rng=rng, dtype=x.dtype)
            y = lo.stiefel.polar(x + t * side)
            if isinstance(problem, PCA):
                y = y @ lo.stiefel.random(2, rng=rng)
            gap = problem.fun(y) - best
            assert near.gap(y) == pytest.approx(gap, abs=1e-14 * abs(best) + 1e-15)


@pytest.mark.parametrize("kind", ["procrustes", "pca"])
def test_off_the_manifold_f_and_its_gradient_feel_mu(rng, kind):
    """The trace's own columns: f - f* falls by max(q^2, mu), the gradient norm by max(q, mu)."""
    problem = (
        procrustes(rng, 5, 3)
        if kind == "procrustes"
        else PCA.random(6, 2, spectrum=[4.0, 3.1, 1.9, 1.2, 1.1, 0.7], rng=rng)
    )
    eta = 0.4 / max(naive_rates(problem, 1.0, 0.5))
    q = local_factors(problem, lo.landing(step=eta, lam=0.5 / eta)).gradient
    best, fun = problem.optimum()
    for mu in (0.5 * (1.0 + q), 0.6 * q * q):
        x0 = lo.stiefel.polar(best + 0.1 * lo.stiefel.random(*best.shape, rng=rng))
        x0 = x0 + 0.02 * x0 @ np.diag(rng.standard_normal(best.shape[1]))
        method = lo.landing(step=eta, lam=0.5 * (1.0 - mu) / eta)
        stop = lo.MaxIterations(1500)
        trace = lo.minimize(problem, x0, method, stop=stop, record=lo.Every(1)).trace
        k = trace["iteration"]
        gap, _ = measured_factor(k, np.abs(trace["fun"] - fun), 1e-13 * abs(fun))
        norm, _ = measured_factor(k, trace["gradient_norm"], 1e-12)
        assert math.log(gap) == pytest.approx(math.log(max(q * q, mu)), rel=0.02)
        assert math.log(norm) == pytest.approx(math.log(max(q, mu)), rel=0.02)


def test_other_precisions_and_libraries(rng, arrays):
    """Where rounding comes sooner the tail is shorter; elsewhere than in NumPy it is the same."""
    right = procrustes(rng, 4, 2)
    eta = scaled(right, CANONICAL, 1.0)
    method = lo.landing(step=eta, lam=0.4 / eta)
    same = Procrustes(arrays.to(right.A), arrays.to(right.B), weight=right.weight)
    assert local_factors(same, method) == local_factors(right, method)
    close(check_local_factors(same, method), 3)
    if arrays.name == "numpy":
        single = Procrustes(*(v.astype(np.float32) for v in (right.A, right.B)), weight=0.7)
        assert all(check_local_factors(single, method, tolerance=0.03))


# -- local factors: what is a little wrong ----------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_another_step_scale_or_component_breaks_the_law(rng, shape):
    n, p, dtype, component = SHAPES[shape]
    problem = procrustes(rng, n, p, dtype)
    eta = scaled(problem, CANONICAL, 0.3, component)

    def factors(component=component, problem=problem, **wrong):
        options = dict(step=eta, lam=0.45 / eta, tangent=CANONICAL) | wrong
        return local_factors(problem, lo.landing(**options), component=component)

    method = lo.landing(step=eta, lam=0.45 / eta)
    lines = check_local_factors(problem, method, component=component, rng=rng)
    close(lines, 3)
    assert broken(lines, factors(step=1.1 * eta)) and broken(lines, factors(step=0.9 * eta))
    assert broken(lines, factors(tangent=lo.fields.Canonical(0.25)))
    if n > p:  # what leaves the span is slowest, and not alike in the two metrics
        assert broken(lines, factors(tangent=EUCLIDEAN))
    if component:
        assert broken(lines, factors(component=-component))
    assert broken(lines, factors(problem=Procrustes(problem.A, problem.B, weight=0.77)))


def test_another_lam_breaks_the_law_of_the_distance(rng):
    problem = procrustes(rng, 5, 3)
    eta = scaled(problem, CANONICAL, 0.4)
    method = lo.landing(step=eta, lam=0.02 / eta)
    factors = local_factors(problem, lo.landing(step=eta, lam=0.022 / eta))
    assert not any(check_local_factors(problem, method, factors=factors, rng=rng))
    # POGO does not have the landing's distance.
    pogo = lo.pogo(scaled(problem, CANONICAL, 1.0))
    right = local_factors(problem, pogo)
    wrong = replace(right, distance=right.gap)
    lines = check_local_factors(problem, pogo, factors=wrong, rng=rng)
    assert [line.holds for line in lines] == [True, True, False]


@pytest.mark.parametrize("p", [2, 4])
def test_a_wrong_gradient_breaks_the_law(rng, p):
    """A column 5 % too long: another optimum, so that f does not come down to f*."""

    class Wrong(Procrustes):
        def grad(self, x):
            gradient = super().grad(x)
            gradient[:, 0] *= 1.05
            return gradient

        def value_and_gradient(self, x):
            return self.fun(x), self.grad(x)

    right = procrustes(rng, 4, p)
    eta = scaled(right, CANONICAL, 0.3)
    method = lo.landing(step=eta, lam=0.45 / eta)
    assert all(check_local_factors(right, method, rng=0))
    wrong = Wrong(right.A, right.B, weight=right.weight)
    assert not check_local_factors(wrong, method, rng=0)[0]


# -- measured factors -------------------------------------------------------------------------


def test_measured_factor_of_known_series(rng):
    k = np.arange(12_000)
    rounding = 1e-15 * np.abs(rng.standard_normal(k.size))
    for factor in (0.5, 0.9, 0.99, 0.997):
        found = measured_factor(k, 3.0 * factor**k + rounding, 1e-13)
        assert math.log(found.factor) == pytest.approx(math.log(factor), rel=1e-3)
        for other, rel in ((0.2, 2e-2), (0.9, 3e-3), (1.3, 3e-3)):  # a mode ten times as large
            values = factor**k + 10.0 * (factor ** (1.0 + other)) ** k + rounding
            found = measured_factor(k, values, 1e-13)
            assert math.log(found.factor) == pytest.approx(math.log(factor), rel=rel)
            assert abs(found.factor - factor) <= found.half_width
    # Growth, an oscillation, and rows that are not equally spaced.
    assert measured_factor(k[:100], 1.1 ** k[:100], 0.0).factor == pytest.approx(1.1)
    values = 0.9**k * (1.0 + 0.5 * (-0.95) ** k)
    assert measured_factor(k, values, 1e-13).factor == pytest.approx(0.9, rel=2e-3)
    some = np.unique(rng.integers(0, 200, 120))
    assert measured_factor(some, 0.9**some, 1e-13).factor == pytest.approx(0.9, rel=1e-6)


def test_measured_factor_knows_its_uncertainty(rng):
    """Modes as they come: the half-width covers the error, but where the slowest is hardly there."""
    covered, total = 0, 200
    k = np.arange(4000)
    for _ in range(total):
        rates = np.sort(rng.uniform(0.2, 1.0, 5)) * rng.uniform(0.02, 0.2)
        values = (rng.uniform(0.1, 1.0, 5)[:, None] * np.exp(-np.outer(rates, k))).sum(axis=0)
        found = measured_factor(k, values, 1e-26)
        error = abs(found.factor - math.exp(-rates[0]))
        assert -math.log(found.factor) <= 1.15 * rates[0]
        covered += error <= found.half_width + 1e-12
    assert covered >= 0.9 * total


def test_measured_factor_of_too_little():
    k = np.arange(20)
    nothing = measured_factor(k, 0.1**k, 1e-8)
    assert math.isnan(nothing.factor) and math.isnan(nothing.half_width)
    assert math.isnan(measured_factor([], [], 0.0).factor)
    assert math.isnan(measured_factor(k, np.full(20, math.nan), 0.0).factor)
    # The stretch above the floor may come late.
    late = np.concatenate([np.zeros(5), 0.5 ** np.arange(30)])
    assert measured_factor(np.arange(35), late, 1e-12).factor == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one length"):
        measured_factor(k, k[:-1], 0.0)


# -- what local factors refuse ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lo.landing(), "search="),
        (lo.landing(step=lambda k: 0.1), "search="),
        (lo.landing(step=lo.steps.BarzilaiBorwein()), "search="),
        (lo.landing(step=0.1, base=lo.estimators.Momentum(0.9)), "estimator="),
        (lo.landing_sgd(step=0.1), "estimator="),
        (lo.landing_lbfgs(), "direction="),
        (lo.pymanopt("ConjugateGradient"), "pymanopt"),
        ("landing", "landing"),
        (
            lo.Method(lo.searches.OpenLoop(lo.steps.Constant(0.1)), move=lo.moves.Pogo()),
            "field=",
        ),
        (
            lo.Method(
                lo.searches.OpenLoop(lo.steps.Constant(0.1)),
                lo.fields.Field(CANONICAL, None),
                lo.moves.NewtonSchulz(),
            ),
            "move=",
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_other_methods_are_refused(rng, method, message):
    with pytest.raises(TypeError, match=r"lo.landing\(step=<number>\)") as error:
        local_factors(procrustes(rng, 3, 3), method)
    assert message in str(error.value)


def test_other_tangents_are_refused(rng):
    class Mine:
        needs_gram = True

        def coefficients(self, kernels, delta, cross):
            return CANONICAL.coefficients(kernels, delta, cross)

    with pytest.raises(TypeError, match=r"tangent .*Mine"):
        local_factors(procrustes(rng, 3, 3), lo.landing(step=0.1, tangent=Mine()))


def test_other_problems_are_refused(rng):
    method = lo.landing(step=0.01)
    with pytest.raises(TypeError, match="Procrustes, PCA and SampledPCA, got Brockett"):
        local_factors(lo.problems.Brockett.random(4, 2, rng=rng), method)
    for problem in (Procrustes.random(3, stack=(2,), rng=rng), Procrustes.random(3, 2, rng=rng)):
        with pytest.raises(ValueError, match="one matrix"):
            local_factors(problem, method)
    for problem in (PCA.random(3, 3, rng=rng), Procrustes.random(1, 1, rng=rng)):
        with pytest.raises(ValueError, match="constant"):
            local_factors(problem, method)
    with pytest.raises(ValueError, match="only real square"):
        local_factors(Procrustes.random(2, 3, rng=rng), method, component=1)
    with pytest.raises(ValueError, match=r"\+1 or -1"):
        local_factors(Procrustes.random(3, rng=rng), method, component=2)
    problem = procrustes(rng, 3, 3)
    eta = scaled(problem, CANONICAL, 2.1)
    with pytest.raises(ValueError, match="shorter step"):
        check_local_factors(problem, lo.landing(step=eta, lam=0.1 / eta))


# -- the noise floor --------------------------------------------------------------------------


def linear_sum(rng, n=10, p=2, terms=40, dtype=REAL, noise=0.2):
    """Terms -Re <T_i, X> with signal and noise, and the optimum: polar of the mean."""
    T = lo.stiefel.random(n, p, rng=rng, dtype=dtype) * np.linspace(2.0, 1.0, p)
    T = T + noise * gaussian(rng, (terms, n, p), dtype)
    problem = lo.FiniteSum(
        lambda x, t: -float(np.vdot(T[t].mean(axis=0), x).real),
        lambda x, t: -T[t].mean(axis=0),
        n_terms=terms,
        shape=(n, p),
        like=T[0],
    )
    return problem, lo.stiefel.polar(T.mean(axis=0)), T


def sgd(step=0.01, lam=5.0, batch_size=1, tangent=CANONICAL):
    sampler = lo.samplers.WithReplacement()
    return lo.landing_sgd(step, lam=lam, batch_size=batch_size, sampler=sampler, tangent=tangent)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_noise_floor_is_the_closed_form(rng, dtype):
    """Against all N^b minibatches, one by one; R = skew(G X^H) X as it is written."""
    problem, x, T = linear_sum(rng, 5, 2, 4, dtype)
    for size in (1, 2, 3):
        grams = []
        for batch in itertools.product(range(4), repeat=size):
            K = -T[list(batch)].mean(axis=0) @ x.conj().T
            R = 0.5 * (K - K.conj().T) @ x
            grams.append(R.conj().T @ R)
        Q = np.mean(grams, axis=0)
        V = np.mean([np.linalg.norm(gram - Q) ** 2 for gram in grams])
        found = noise_floor(problem, sgd(0.02, 3.0, size), x)
        assert np.linalg.norm(found.second_moment - Q) <= 1e-13
        assert found.spread == pytest.approx(V, rel=1e-12 if size == 1 else 0.15)
        assert np.linalg.norm(found.delta - 0.01 / 3.0 * Q) <= 1e-15
        law = 0.02**2 / (16.0 * 9.0) * (np.linalg.norm(Q) ** 2 + 0.06 / 0.94 * found.spread)
        assert found.infeasibility == pytest.approx(law, rel=1e-12)


def test_noise_floor_of_other_tangents(rng):
    """On O(p) all are one; elsewhere the span's part is scaled apart from the turn's."""
    problem, x, _ = linear_sum(rng, 4, 4, 6)
    ours = noise_floor(problem, sgd(), x).second_moment
    for tangent, scale in ((EUCLIDEAN, 1.0), (lo.fields.Canonical(1.0), 4.0), (NEAR, 1.0)):
        other = noise_floor(problem, sgd(tangent=tangent), x).second_moment
        assert np.allclose(other, scale * ours)
    problem, x, T = linear_sum(rng, 6, 2, 5)
    R = [-t + x @ (x.T @ t + t.T @ x) / 2.0 for t in T]
    found = noise_floor(problem, sgd(tangent=EUCLIDEAN), x).second_moment
    assert np.allclose(found, np.mean([r.T @ r for r in R], axis=0))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_runs_end_on_the_noise_floor(rng, dtype):
    problem, x, _ = linear_sum(rng, dtype=dtype)
    method = sgd()
    lines = check_noise_floor(problem, method, x, iterations=6_000, rng=1)
    assert len(lines) == 4 and all(lines), evidence_table(lines)
    law = noise_floor(problem, method, x)

    def wrong(method):
        floor = noise_floor(problem, method, x)
        assert abs(floor.infeasibility / law.infeasibility - 1.0) > 0.15
        measured = lines[0].measured
        return Evidence.law("", measured, floor.infeasibility, 0.05)

    assert not wrong(sgd(step=0.011)) and not wrong(sgd(lam=4.5))
    assert not wrong(sgd(batch_size=2)) and not wrong(sgd(tangent=lo.fields.Canonical(0.25)))
    if dtype is COMPLEX:
        return
    # And through the check itself.
    floor = noise_floor(problem, sgd(lam=4.5), x)
    lines = check_noise_floor(problem, method, x, floor=floor, iterations=2_000, rng=1)
    assert not lines[0] and not lines[1]


def test_what_the_noise_floor_refuses(rng):
    problem, x, _ = linear_sum(rng)
    with pytest.raises(TypeError, match="independent"):
        noise_floor(problem, lo.landing_sgd(step=0.01, batch_size=1), x)
    sampler = lo.samplers.WithReplacement()
    with pytest.raises(TypeError, match="independent"):
        noise_floor(problem, lo.landing_sgd(step=0.01, sampler=sampler), x)
    with pytest.raises(TypeError, match=r"lo.landing_sgd\(step=<number>"):
        noise_floor(problem, lo.landing(step=0.01), x)
    with pytest.raises(TypeError, match="search="):
        noise_floor(problem, sgd(step=lo.steps.Decay(0.1)), x)
    estimator = lo.estimators.MiniBatch(1, sampler)
    with pytest.raises(TypeError, match="move="):
        noise_floor(problem, lo.riemannian(step=0.1, estimator=estimator), x)
    for lam in (0.0, 60.0):
        with pytest.raises(ValueError, match="eta lam"):
            noise_floor(problem, sgd(step=0.01, lam=lam), x)
    with pytest.raises(TypeError, match="finite sum"):
        noise_floor(PCA.random(5, 2, rng=rng), sgd(), x)
    with pytest.raises(ValueError, match="too few"):
        check_noise_floor(problem, sgd(), x, iterations=100)
    wild, x, _ = linear_sum(rng, noise=30.0)
    with pytest.raises(ValueError, match="safe step cut"):
        check_noise_floor(wild, sgd(), x, iterations=1000)


# -- without a gradient -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (4, 1)])
def test_newton_schulz_squares_the_distance(rng, shape, dtype):
    x0 = off_manifold(rng, *shape, dtype)
    lines = check_newton_schulz(x0)
    assert len(lines) == 2 and all(lines), evidence_table(lines)
    assert lines[1].measured == pytest.approx(2.0, abs=0.05)
    assert all(check_newton_schulz(x0, lam=0.3))
    for lam, law in ((0.5, 0.49), (0.3, 0.33)):
        assert not check_newton_schulz(x0, lam=lam, law=law)[0]
    delta = x0.conj().T @ x0 - np.eye(shape[1])
    y = x0 - 0.5 * x0 @ delta
    assert np.allclose(y.conj().T @ y - np.eye(shape[1]), newton_schulz_decay(delta), atol=1e-15)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_singular_values_where_f_is_constant(rng, dtype):
    near = off_manifold(rng, 6, 3, dtype)
    far = lo.stiefel.random(6, 3, rng=rng, dtype=dtype) * np.array([1.9, 0.4, 1.2])
    for x0, step, lam in ((near, 0.05, 2.0), (near, 1.0, 0.4), (far, 0.1, 5.0)):
        assert all(check_penalty(x0, step=step, lam=lam))
        assert not any(check_penalty(x0, step=step, lam=lam, law=1.1 * lam))
    # 1 - 0.5 (1.9^2 - 1) < 0: the singular vector flips, and its value stays positive.
    flipped = penalty_decay(np.array([1.9]), 0.1, 5.0)
    assert flipped > 0.0 and 1.0 - 0.5 * (1.9**2 - 1.0) < 0.0


def test_a_start_on_the_manifold_shows_nothing(rng):
    for check in (check_newton_schulz, lambda x0: check_penalty(x0, step=0.1, lam=1.0)):
        with pytest.raises(ValueError, match="off the manifold"):
            check(lo.stiefel.random(4, 2, rng=rng))


# -- the flow ---------------------------------------------------------------------------------


def test_flow_gram_solves_its_equation(rng):
    """S' = -2 lam S (S - I), by central differences; t = 0 is the start, and the end is I."""
    x0 = off_manifold(rng, 5, 3, COMPLEX)
    S = x0.conj().T @ x0
    h = 1e-5
    for t in (0.0, 0.3):
        here = flow_gram(S, 1.7, t)
        slope = (flow_gram(S, 1.7, t + h) - flow_gram(S, 1.7, t - h)) / (2.0 * h)
        assert np.linalg.norm(slope + 3.4 * here @ (here - np.eye(3))) <= 1e-9
    assert np.linalg.norm(flow_gram(S, 1.7, 0.0) - S) <= 1e-14
    assert np.linalg.norm(flow_gram(S, 1.7, 20.0) - np.eye(3)) <= 1e-14


@pytest.mark.parametrize("tangent", [CANONICAL, EUCLIDEAN, NEAR], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("shape", [(5, 5, REAL), (4, 4, COMPLEX), (6, 3, REAL)])
def test_runs_follow_the_flow(rng, shape, tangent):
    """Of any f. NearTangent is tangent to second order only, which the law sees for tall X."""
    n, p, dtype = shape
    problem, x0 = procrustes(rng, n, p, dtype), off_manifold(rng, n, p, dtype)
    time = 1.0 / float(np.linalg.norm(problem.grad(x0)))
    options = dict(lam=0.7 / time, time=time, tangent=tangent, iterations=200)
    lines = check_flow(problem, x0, **options)
    exactly_tangent = tangent != NEAR or n == p
    assert lines[0].holds is exactly_tangent, evidence_table(lines)
    for wrong in (0.9, 1.1):
        assert not any(check_flow(problem, x0, law=wrong * options["lam"], **options))


def test_the_flow_needs_steps_that_are_not_cut(rng):
    problem, x0 = procrustes(rng, 4, 4), off_manifold(rng, 4, 4)
    with pytest.raises(ValueError, match="safe step cut"):
        check_flow(problem, x0, time=10.0, iterations=3)


# -- POGO's distance --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("shape", [(4, 4), (6, 2), (5, 1)])
def test_pogo_stays_below_its_bound(rng, shape, dtype):
    problem, x0 = procrustes(rng, *shape, dtype), off_manifold(rng, *shape, dtype)
    worst = 0.0
    for length in (0.1, 0.5, 1.2):  # of the first step, ||eta G||
        method = lo.pogo(length / float(np.linalg.norm(problem.grad(x0))))
        (line,) = check_pogo_bound(problem, x0, method, iterations=30)
        assert line.holds, evidence_table([line])
        worst = max(worst, line.measured)
    assert worst > 0.3  # the bound says something
    # Without the tangent step's own part, or with half of the field, it is not one.
    x = lo.stiefel.polar(x0)
    G = problem.grad(x)
    R = 0.5 * (G - x @ (G.conj().T @ x))
    eta = 0.5 / float(np.linalg.norm(R))
    after = lo.minimize(problem, x, lo.pogo(eta), stop=lo.MaxIterations(1)).x
    assert lo.stiefel.distance(after) <= pogo_bound(0.0, 0.5)
    if shape[1] <= 2:
        assert lo.stiefel.distance(after) > pogo_bound(0.0, 0.25)


def test_pogo_bound_refuses_other_methods(rng):
    problem, x0 = procrustes(rng, 3, 3), lo.stiefel.random(3, rng=rng)
    for method in (lo.landing(step=0.1), lo.pogo(0.1, lam=0.3)):
        with pytest.raises(TypeError, match=r"lo\.pogo"):
            check_pogo_bound(problem, x0, method)


# -- all of them ------------------------------------------------------------------------------


def test_all_laws_hold(rng):
    lines = check_exact_laws(quick=True, rng=rng)
    assert len(lines) >= 16
    assert all(lines), evidence_table([line for line in lines if not line])
    names = [line.name for line in lines]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_all_laws_hold_at_length():
    lines = check_exact_laws()
    assert all(lines), evidence_table(lines)


def test_the_table_prints():
    line = Evidence.law("rate of the f-gap", 0.1, 0.1001, 0.01, "+- 0.1 %")
    assert "holds" in evidence_table([line])
    assert all(hasattr(exact, name) for name in exact.__all__)
