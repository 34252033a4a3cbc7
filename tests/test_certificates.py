"""Certificates: the merit against differences, the constants as bounds, and what must be found wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import reference as ref

import landingopt as lo
from landingopt import problems
from landingopt.rates import certificates
from landingopt.rates.certificates import Constants, certify

UNIT = 2.0**-52
PROMISED = {
    "gradient", "Hessian", "distance", "identity", "angle", "minimum", "descent", "sum of ||R||^2",
    "sum of N",
}  # fmt: skip


def merit(problem, lam=1.0, mu=0.0):
    return certificates._Merit(problem, lam, mu)


def quadratics(stack=(), dtype=np.float64, seed=0):
    """Asymmetric, of every shape; Hessians of both signs."""
    rng = np.random.default_rng(seed)
    K = ref.hermitian(rng, (*stack, 6, 6), dtype)
    yield problems.Procrustes.random(4, stack=stack, rng=rng, dtype=dtype, weight=0.7)
    yield problems.Procrustes.random(3, 6, 4, stack=stack, rng=rng, dtype=dtype)
    yield problems.Procrustes.random(5, 3, stack=stack, rng=rng, dtype=dtype)  # wide
    yield problems.UnbalancedProcrustes.random(6, 3, stack=stack, rng=rng, dtype=dtype)
    yield problems.PCA.from_covariance(K, 2)
    yield problems.Brockett(K, [2.0, -3.0, 1.0])
    if not stack:
        yield problems.SampledPCA.random(30, 6, 2, rng=rng, dtype=dtype)
        yield problems.PCA(ref.gaussian(rng, (4, 6), dtype), 2)  # fewer samples than columns


def quartic(shape, dtype=np.float64, seed=3):
    """sum |x - T|^4 / 4, with another Hessian everywhere."""
    target = 0.3 * ref.seeded(seed, shape, dtype)

    def square(z):
        return np.abs(z) ** 2

    def hessp(x, v):
        z = x - target
        return square(z) * v + 2.0 * np.real(np.conj(z) * v) * z

    return lo.Objective(
        lambda x: np.sum(square(x - target) ** 2, axis=(-2, -1)) / 4.0,
        lambda x: square(x - target) * (x - target),
        hessp=hessp,
        shape=shape,
    )


# -- the formulas -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 5, 3)])
def test_grad_L_is_the_gradient_of_L(shape, dtype):
    rng = np.random.default_rng(1)
    x, v = ref.in_tube(rng, shape, 0.6, dtype), ref.gaussian(rng, shape, dtype)
    at, t = merit(quartic(shape, dtype), mu=2.5), 1e-5
    difference = (at(x + t * v).merit - at(x - t * v).merit) / (2 * t)
    tall = ref.H(v) if shape[-2] < shape[-1] else v
    slope = np.sum((tall.conj() * at(x).merit_gradient).real, axis=(-2, -1))
    size = np.linalg.norm(at(x).merit_gradient) * np.linalg.norm(v)
    np.testing.assert_allclose(slope, difference, rtol=0, atol=1e-9 * size)


def test_the_point_against_the_formulas():
    problem, lam, mu = problems.Procrustes.random(3, 5, rng=0), 0.7, 3.0
    x = ref.in_tube(np.random.default_rng(2), problem.shape, 0.5)
    g, delta = problem.grad(x), x.T @ x - np.eye(3)
    r, field = ref.relative_gradient(x, g), ref.landing_field(x, g, lam)
    point = merit(problem, lam, mu)(x)
    n = np.sum(delta**2) / 4
    L = problem.fun(x) - ref.inner(ref.sym(x.T @ g), delta) / 2 + mu * n
    grad = (
        g - x @ ref.sym(x.T @ g) - g @ delta / 2 - problem.hessp(x, x @ delta) / 2 + mu * x @ delta
    )
    np.testing.assert_allclose(point.field, field, atol=1e-13)
    got = point.r2, point.infeasibility, point.merit, point.slope
    assert got == pytest.approx((ref.inner(r, r), n, L, ref.inner(grad, field)), rel=1e-12)


def test_mu_nu_smoothness_and_step_by_hand():
    c = Constants(lipschitz=2.0, gradient=3.0, cross=5.0, eps=0.44, quadratic=True)
    k = 3.0 + 2.0 * 1.2
    mu = 2 / (3 - 1.76) * (15 + 2 * 1.44 + k * k * 1.44 / (4 * 0.5 * 0.56))
    assert c.mu(0.5) == pytest.approx(mu, rel=1e-14)
    assert c.nu(0.5) == pytest.approx(mu / 2, rel=1e-14)
    smooth = 2 + 5 + 1.2 * 3 + 1.44 * 2 + (2 * 0.44 + 2 * 1.2 * 3) / 2
    smooth += 2 * (0.44 + 2 * 1.44) / 2 + mu * (0.44 + 2 * 1.44)
    assert c.smoothness(0.5) == pytest.approx(smooth, rel=1e-14)
    for lam in (0.5, 300.0):  # either of the two bounds is the smaller
        one, two = 1 / (2 * c.smoothness(lam)), c.nu(lam) / (4 * c.smoothness(lam) * lam**2 * 1.44)
        assert (one < two) == (lam < 1)
        assert c.step(lam) == pytest.approx(min(one, two), rel=1e-14)
        assert type(c.step(lam)) is float
    assert dataclasses.replace(c, quadratic=False).step(0.5) == 0.0


# -- the constants are bounds -----------------------------------------------------------------


def into_tube(x, eps):
    """The nearest singular values, in direction of Delta, that have d <= eps."""
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    w = s**2 - 1
    w *= np.minimum(1.0, eps / np.linalg.norm(w, axis=-1, keepdims=True))
    return (u * np.sqrt(1 + w)[..., None, :]) @ vh


def steepest(problem, x, what):
    """The value, and its gradient in x."""
    g = problem.grad(x)
    if what == "gradient":
        u, s, vh = np.linalg.svd(g, full_matrices=False)
        return s[..., 0], problem.hessp(x, u[..., :1] @ vh[..., :1, :])
    wide = x.shape[-2] < x.shape[-1]
    cross = x @ ref.H(g) if wide else ref.H(x) @ g
    values, vectors = np.linalg.eigh(ref.sym(cross))
    top = np.argmax(np.abs(values), axis=-1)[..., None]
    q = np.take_along_axis(vectors, top[..., None, :], axis=-1)
    sign = np.sign(np.take_along_axis(values, top, axis=-1))[..., None]
    turn = (lambda a: q @ ref.H(q) @ a) if wide else (lambda a: a @ q @ ref.H(q))
    return np.max(np.abs(values), axis=-1), sign * (turn(g) + problem.hessp(x, turn(x)))


def largest(problem, what, eps, rng, dtype, starts=4, rounds=40):
    """The largest value found on the tube, by projected ascent."""
    found = 0.0
    for k in range(starts):
        x = ref.in_tube(rng, problem.shape, eps * (k % 3) / 2, dtype)
        for i in range(rounds):
            value, ahead = steepest(problem, x, what)
            found = np.maximum(found, value)
            size = np.linalg.norm(ahead, axis=(-2, -1), keepdims=True)
            x = into_tube(x + 2.0 * 0.9**i * ahead / size, eps)
            assert np.all(lo.stiefel.distance(x) <= eps * (1 + 1e-12))
    return found


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("eps", [0.1, 0.7])
def test_the_constants_are_bounds(eps, dtype):
    rng = np.random.default_rng(5)
    for problem in quadratics(dtype=dtype):
        constants = Constants.of(problem, eps)
        assert constants.quadratic and constants.eps == eps
        # The Hessian: power iteration.
        v = ref.gaussian(rng, problem.shape, dtype)
        for _ in range(300):
            v = problem.hessp(v, v)
            size = np.linalg.norm(v)
            v = v / size
        assert 0.999 * constants.lipschitz <= size <= constants.lipschitz * (1 + 1e-12)
        for what, least in (("gradient", 0.7), ("cross", 0.6)):
            ratio = largest(problem, what, eps, rng, dtype) / getattr(constants, what)
            assert ratio <= 1 + 1e-12
            sharp = isinstance(problem, (problems.PCA, problems.Brockett, problems.SampledPCA))
            assert ratio > (0.85 if sharp else least)


def test_the_constants_of_a_stack():
    for stacked in quadratics((3,)):
        together = Constants.of(stacked, 0.5)
        for i in range(3):
            alone = Constants.of(one_of(stacked, i), 0.5)
            for name in ("lipschitz", "gradient", "cross", "minimum"):
                value = getattr(together, name)
                if value is None:
                    assert getattr(alone, name) is None
                else:
                    assert value.shape == (3,)
                    assert value[i] == pytest.approx(getattr(alone, name), rel=1e-12)
            for number in ("mu", "nu", "smoothness", "step"):
                assert getattr(together, number)(2.0)[i] == pytest.approx(
                    getattr(alone, number)(2.0), rel=1e-12
                )


def one_of(problem, i):
    if isinstance(problem, problems.PCA):
        return problems.PCA.from_covariance(problem._covariance[i], problem.shape[-1])
    if isinstance(problem, problems.Brockett):
        return problems.Brockett(problem.K[i], problem.weights)
    return type(problem)(problem.A[i], problem.B[i], weight=problem.weight)


def test_the_minimum_is_of_the_component():
    problem = problems.Procrustes.random(4, rng=3)
    values = {sign: Constants.of(problem, 0.5, sign).minimum for sign in (1, -1, None)}
    assert values[1] != values[-1] and values[None] == min(values[1], values[-1])
    for sign in (1, -1):
        assert values[sign] == pytest.approx(problem.optimum(sign)[1], rel=1e-15)
    assert Constants.of(problems.UnbalancedProcrustes.random(5, 2, rng=0), 0.5).minimum is None


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(("eps", "lam"), [(0.2, 1.0), (0.7, 30.0)])
def test_grad_L_is_as_smooth_as_said(eps, lam, dtype):
    """The norm of the Hessian of L, by power iterations of differences, at wild points of the tube."""
    rng = np.random.default_rng(7)
    for problem in quadratics(dtype=dtype):
        constants = Constants.of(problem, eps)
        # With mu of the theorem its own term hides the others; with mu = 0 they are seen.
        for mu in (0.0, constants.mu(lam)):
            bound = constants.smoothness(lam) + (mu - constants.mu(lam)) * (2 + 3 * eps)
            at = merit(problem, lam, mu)
            wide, found = problem.shape[0] < problem.shape[1], 0.0
            for k in range(4):
                x = ref.in_tube(rng, problem.shape, eps, dtype)
                if k % 2:  # one long singular vector
                    u, _, vh = np.linalg.svd(x, full_matrices=False)
                    x = (u * np.sqrt(1 + eps * (np.arange(len(vh)) == 0))) @ vh
                v = ref.gaussian(rng, problem.shape, dtype)
                for _ in range(25):
                    v = v / np.linalg.norm(v)
                    d = at(x + 1e-4 * v).merit_gradient - at(x - 1e-4 * v).merit_gradient
                    v = (ref.H(d) if wide else d) / 2e-4
                found = max(found, np.linalg.norm(v))
            assert found <= bound * (1 + 1e-6)
            assert found > 0.1 * bound
            if mu:
                assert found > 0.5 * bound


def test_f_star_is_the_least_of_L_on_the_tube():
    """Near the optimum, on and off the manifold, and far from it; a small mu goes below."""
    rng, eps = np.random.default_rng(11), 0.6
    K = ref.hermitian(rng, (6, 6))
    for problem in (problems.Procrustes.random(4, rng=8), problems.PCA.from_covariance(K, 5)):
        x, _ = problem.optimum()
        component = lo.stiefel.component(x)
        constants = Constants.of(problem, eps, component)
        safe, small = merit(problem, 1.0, constants.mu(1e6)), merit(problem, 1.0, 0.0)
        lowest = math.inf
        for scale in 10.0 ** rng.uniform(-4, 0, 400):
            y = into_tube(x + scale * ref.gaussian(rng, x.shape) * rng.choice([0.1, 1.0]), eps)
            if lo.stiefel.component(y) == component:
                assert safe(y).merit >= constants.minimum - 1e-12 * abs(constants.minimum)
                lowest = min(lowest, small(y).merit)
        assert lowest < constants.minimum - 1e-3


# -- no violation -----------------------------------------------------------------------------


def stacks(seed, count):
    """Square (both components), tall, complex; PCA with eigenvalues of both signs."""
    rng = np.random.default_rng(seed)
    yield problems.Procrustes.random(4, stack=(count,), rng=rng)
    yield problems.Procrustes.random(3, 5, stack=(count,), rng=rng, weight=0.1)
    yield problems.Procrustes.random(2, 4, stack=(count,), rng=rng, dtype=np.complex128)
    yield problems.PCA.from_covariance(ref.hermitian(rng, (count, 6, 6)), 2)
    K = ref.hermitian(rng, (count, 3, 3), np.complex128)
    yield problems.PCA.from_covariance(K, 3)


def assert_clean(report, without=()):
    assert bool(report), str(report)
    assert set(report.violations) == PROMISED - set(without)
    assert all(line.holds for line in report.lines)


@pytest.fixture
def trusted(monkeypatch):
    """Problems whose derivatives other tests check."""
    monkeypatch.setattr(certificates, "_check_oracle", lambda problem, start: [])


@dataclasses.dataclass(frozen=True, eq=False)
class Each:
    """A step of its own for each matrix of a stack."""

    steps: np.ndarray

    def start(self, context):
        return self

    def size(self, k, point):
        return self.steps


@pytest.mark.usefixtures("trusted")
def test_no_violation_at_a_hundred_thousand_iterates():
    """Each matrix with the theorem's own step, from everywhere in the tube and from its edge."""
    total, largest, count = 0, dict.fromkeys(PROMISED - {"gradient", "Hessian"}, 0.0), 100
    for seed, (eps, lam) in enumerate(itertools.product((0.2, 0.5, 0.7), (0.5, 5.0, 50.0))):
        for problem in stacks(seed, count):
            rng = np.random.default_rng(seed)
            d = eps * np.minimum(rng.uniform(0, 1.5, (count, 1, 1)), 1 - 1e-14)
            x0 = ref.in_tube(rng, problem.shape, d, problem.like.dtype)
            constants = Constants.of(problem, eps, lo.stiefel.component(x0))
            method = lo.landing(step=Each(constants.step(lam)), lam=lam, eps=eps)
            report = certify(problem, method, x0, iterations=24)
            assert_clean(report, {"gradient", "Hessian"})
            assert report.observed == () and report.iterates == 25 * count
            total += report.iterates
            for line in report.lines:
                largest[line.name] = max(largest[line.name], line.ratio)
    assert total >= 1e5
    # Nothing is so loose that it says nothing, and the identity holds to rounding.
    assert largest["angle"] > 0.7 and largest["descent"] > 0.3 and largest["distance"] > 0.99
    assert largest["identity"] < 0.4


@pytest.mark.usefixtures("trusted")
def test_no_violation_at_long_steps():
    """What is promised at any safe step, from the edge of the tube down to rounding."""
    total = 0
    for seed, (eps, lam) in enumerate([(0.3, 1.0), (0.5, 0.3), (0.7, 10.0)]):
        for problem in stacks(100 + seed, 40):
            x0 = ref.in_tube(
                np.random.default_rng(seed), problem.shape, 0.99 * eps, problem.like.dtype
            )
            constants = Constants.of(problem, eps, lo.stiefel.component(x0))
            step = 0.5 / float(np.max(constants.lipschitz))
            report = certify(problem, lo.landing(step=step, lam=lam, eps=eps), x0, iterations=100)
            assert bool(report), str(report)
            assert {line.name for line in report.observed} == {
                "descent",
                "sum of ||R||^2",
                "sum of N",
            }
            total += report.iterates
    assert total > 4e4


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_down_to_rounding_in_every_precision(dtype):
    """Single matrices, to the end: matrices and runs that have ended are no violation."""
    for problem in quadratics(dtype=dtype):
        constants = Constants.of(problem, 0.5)
        lam = 2.0 * constants.lipschitz
        method = lo.landing(step=0.5 / constants.lipschitz, lam=lam)
        report = certify(problem, method, iterations=120, rng=0)
        assert bool(report), str(report)
        short = certify(problem, lo.landing(step=report.step, lam=lam), iterations=30, rng=0)
        assert bool(short) and short.observed == (), str(short)


def test_a_stack_whose_matrices_end_at_different_times():
    problem = problems.Procrustes.random(2, stack=(5,), rng=0)
    report = certify(problem, lo.landing(step=0.02, lam=5.0), iterations=1500, rng=0)
    assert bool(report), str(report)
    assert 5 < report.iterates < 5 * 1501
    # A start at the optimum moves no further.
    x, _ = problem.optimum()
    report = certify(problem, lo.landing(step=1e-6, lam=5.0), x, iterations=100)
    assert bool(report), str(report)


def test_what_does_not_move_pays_nothing():
    problem = problems.Procrustes.random(3, stack=(4,), rng=0, dtype=np.float32)
    report = certify(problem, lo.landing(step=1e-12, lam=5.0), iterations=20, rng=0)
    assert bool(report), str(report)
    assert report.iterates == 4
    assert line(report, "sum of ||R||^2").measured == line(report, "sum of N").measured == 0.0


def test_both_components_have_their_minimum():
    problem = problems.Procrustes.random(3, rng=5)
    for sign in (1, -1):
        x, f = problem.optimum(sign)
        report = certify(problem, lo.landing(step=0.02, lam=1.0), x * (1 + 1e-3), iterations=300)
        assert bool(report), str(report)
        assert report.constants.minimum == pytest.approx(f, rel=1e-14)
    stacked = problems.Procrustes.random(3, stack=(6,), rng=5)
    x0 = lo.stiefel.random(3, stack=(6,), rng=1)
    signs = lo.stiefel.component(x0)
    assert len(set(signs.tolist())) == 2
    report = certify(stacked, lo.landing(step=0.01, lam=1.0), x0, iterations=300)
    np.testing.assert_allclose(report.constants.minimum, stacked.optimum(signs)[1], rtol=1e-14)
    assert bool(report), str(report)


@pytest.mark.parametrize("safe", ["bound", "exact"])
def test_constants_of_your_own(safe):
    """f that is not quadratic: no step is promised, all else is."""
    problem, eps = quartic((4, 2)), 0.5
    b = math.sqrt(1 + eps)
    far = np.abs(0.3 * ref.seeded(3, (4, 2))) + b  # |z| <= this, entry by entry
    gradient = np.linalg.norm(far**3)
    constants = Constants(3 * np.max(far) ** 2, gradient, b * gradient, eps, minimum=0.0)
    method = lo.landing(step=0.3, lam=2.0, safe=safe)
    report = certify(problem, method, constants=constants, rng=0)
    assert_clean(report, {"descent", "sum of ||R||^2", "sum of N"})
    assert report.step == 0.0 and "no step known" in str(report)
    assert [line.name for line in report.observed] == ["descent", "sum of ||R||^2", "sum of N"]
    nothing = dataclasses.replace(constants, minimum=None)
    report = certify(problem, method, constants=nothing, iterations=10, rng=0)
    assert set(report.violations) == {"gradient", "Hessian", "distance", "identity", "angle"}


def test_fun_and_grad_or_both_together():
    problem = problems.PCA.random(5, 2, rng=0)
    constants = Constants.of(problem, 0.5)
    pair = lo.Objective(
        value_and_gradient=problem.value_and_gradient, hessp=problem.hessp, shape=(5, 2)
    )
    apart = lo.Objective(problem.fun, problem.grad, hessp=problem.hessp, shape=(5, 2))
    for same in (pair, apart):
        report = certify(same, lo.landing(step=0.1), constants=constants, iterations=20, rng=0)
        assert bool(report), str(report)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_other_libraries(arrays, dtype):
    A, B, K = (arrays.to(ref.seeded(i, (3, 4, 3), dtype)) for i in range(3))
    tall = problems.Procrustes(arrays.to(ref.seeded(4, (3, 2, 3), dtype)), A)
    wide = problems.UnbalancedProcrustes(arrays.to(ref.seeded(4, (3, 4, 2), dtype)), B)
    data = problems.PCA(K, 2)
    brockett = problems.Brockett(
        arrays.to(ref.hermitian(np.random.default_rng(0), (4, 4), dtype)), [2, -1]
    )
    for problem in (tall, wide, data, brockett):
        report = certify(problem, lo.landing(step=0.01, lam=2.0), iterations=5, rng=0)
        assert bool(report), str(report)


# -- negative controls ------------------------------------------------------------------------


def changed(problem, **functions):
    parts = {"fun": problem.fun, "grad": problem.grad, "hessp": problem.hessp, **functions}
    return lo.Objective(**parts, shape=problem.shape)


def run(problem, original, lam=5.0, iterations=50, x0=None, **options):
    constants = Constants.of(original, 0.5)
    method = lo.landing(step=float(np.min(constants.step(lam))), lam=lam)
    return certify(
        problem, method, x0, constants=constants, iterations=iterations, rng=0, **options
    )


def test_a_flipped_gradient():
    problem = problems.PCA.random(6, 2, rng=0)
    report = run(changed(problem, grad=lambda x: -problem.grad(x)), problem)
    assert not report
    assert report.violations["gradient"] == 1 and report.violations["descent"] == 50
    assert "VIOLATIONS" in str(report) and "BROKEN" in str(report)


def test_a_wrong_hessian():
    problem = problems.PCA.random(6, 2, rng=0)
    for wrong in (lambda x, v: -problem.hessp(x, v), lambda x, v: 1.001 * problem.hessp(x, v)):
        report = run(changed(problem, hessp=wrong), problem)
        assert not report and report.violations["Hessian"] == 1
        assert sum(report.violations.values()) == 1 and "A VIOLATION" in str(report)


def test_a_gradient_that_is_not_a_function_of_x():
    """The step's gradient is not the one that is looked at: the identity breaks."""
    problem, rng = problems.PCA.random(6, 2, rng=0), np.random.default_rng(0)

    def noisy(x):
        return problem.grad(x) + 1e-3 * rng.standard_normal(x.shape)

    constants = Constants.of(problem, 0.5)
    method = lo.landing(step=0.1, lam=1.0)
    report = certify(
        changed(problem, grad=noisy), method, constants=constants, iterations=50, rng=0
    )
    assert report.violations["identity"] == 50


def worst_case(eps=0.05):
    """f = |x|^2 / 2 on a sphere, at its shortest x: there mu is needed up to (1 - eps) / (1 + eps)."""
    problem = problems.PCA.from_covariance(np.diag([-1.0, -1.0, -1.0]), 1)
    x0 = np.array([[math.sqrt(1 - eps)], [0.0], [0.0]]) * (1 + 1e-15)
    return problem, x0, Constants.of(problem, eps)


def test_mu_is_nearly_sharp_and_smaller_constants_break():
    problem, x0, constants = worst_case()
    method = lo.landing(step=1e-3, lam=1e3, eps=0.05)
    report = certify(problem, method, x0, constants=constants, iterations=5)
    assert report.violations["angle"] == 0, str(report)
    assert line(report, "angle").measured > 0.75
    wrong = {
        "L_f tenfold too small": {"lipschitz": constants.lipschitz / 10},
        "s twice too small": {"cross": constants.cross / 2},
        "mu far too small": {"lipschitz": 1e-3, "gradient": 1e-3, "cross": 1e-3},
    }
    for changes in wrong.values():
        small = dataclasses.replace(constants, **changes)
        report = certify(problem, method, x0, constants=small, iterations=5)
        assert not report and report.violations["angle"] >= 1
        assert math.isinf(line(report, "angle").measured) or line(report, "angle").measured > 1


def line(report, name):
    (found,) = (line for line in (*report.lines, *report.observed) if line.name == name)
    return found


def test_a_gradient_bound_too_small_breaks():
    """K alone: where R is not 0 and N is large, mu must pay for the mixed terms."""
    problem = problems.PCA.from_covariance(np.diag([1.0, -1.0]), 1)
    constants, lam = Constants.of(problem, 0.7), 1e-3
    small = dataclasses.replace(constants, gradient=1e-6, lipschitz=1e-6)
    angles = np.linspace(0, np.pi, 40)
    lengths = np.sqrt(1 + 0.7 * np.array([-1 + 1e-12, 1 - 1e-12]))
    x0 = np.array([[[r * np.cos(a)], [r * np.sin(a)]] for a in angles for r in lengths])
    stacked = problems.PCA.from_covariance(np.tile(np.diag([1.0, -1.0]), (len(x0), 1, 1)), 1)
    for bounds, broken in ((constants, False), (small, True)):
        method = lo.landing(step=1e-6, lam=lam, eps=0.7)
        report = certify(stacked, method, x0, constants=bounds, iterations=1)
        assert bool(report.violations["angle"]) == broken


def test_a_minimum_too_high():
    problem = problems.Procrustes.random(3, rng=5)
    low, high = sorted((1, -1), key=lambda sign: problem.optimum(sign)[1])
    x0 = problem.optimum(low)[0] * (1 + 1e-3)
    constants = Constants.of(problem, 0.5, high)
    report = certify(problem, lo.landing(step=0.01), x0, constants=constants, iterations=50)
    assert report.violations["minimum"] == report.iterates
    right = dataclasses.replace(constants, minimum=problem.optimum(low)[1])
    assert certify(problem, lo.landing(step=0.01), x0, constants=right, iterations=50)


def test_steps_beyond_stability_are_shown_and_not_judged():
    problem = problems.Procrustes.random(4, rng=0)
    report = certify(problem, lo.landing(step=10.0, lam=1.0), iterations=200, rng=0)
    assert bool(report), str(report)
    assert "descent" not in report.violations
    descent = line(report, "descent")
    assert not descent.holds and "times the theorem's; fails at" in descent.note
    text = str(report)
    assert "no violation" in text and "fails" in text and "BROKEN" not in text


def test_long_and_short_steps_in_one_run():
    problem = problems.Procrustes.random(4, rng=0)
    step = Constants.of(problem, 0.5).step(5.0)
    method = lo.landing(step=lambda k: 0.01 if k < 10 else step, lam=5.0)
    report = certify(problem, method, iterations=40, rng=0)
    assert bool(report) and "descent" in report.violations
    assert [line.name for line in report.observed] == ["descent", "sum of ||R||^2", "sum of N"]
    flipped = changed(problem, grad=lambda x: -problem.grad(x))
    constants = Constants.of(problem, 0.5)
    report = certify(flipped, method, constants=constants, iterations=40, rng=0)
    assert 0 < report.violations["descent"] <= 30


@dataclasses.dataclass(frozen=True)
class Reckless:
    """A constant step that claims a tube and guards nothing."""

    step: float
    eps: float = 0.5

    def start(self, context):
        return self

    def size(self, k, point):
        return self.step


@pytest.mark.parametrize("step", [0.3, 1e6])
def test_a_run_that_leaves_the_tube(step):
    problem = problems.Procrustes.random(4, rng=0)
    method = lo.Method(search=lo.searches.OpenLoop(Reckless(step)))
    report = certify(problem, method, iterations=30, rng=0)
    assert not report and report.violations["distance"] > 0
    assert report.violations["identity"] == 0 or step > 1.0  # that is algebra


# -- errors -----------------------------------------------------------------------------------


def test_unknown_constants():
    problem = problems.ICA.random(4, 100, rng=0)
    with pytest.raises(TypeError, match="not for ICA: pass constants=lo"):
        Constants.of(problem, 0.5)

    class Mine(problems.PCA):
        """May have another f."""

    with pytest.raises(TypeError, match="not for Mine"):
        Constants.of(Mine(np.eye(3), 2), 0.5)


@pytest.mark.parametrize("eps", [0.75, 0.0, -1.0, math.nan, "0.5", True])
def test_eps_outside(eps):
    with pytest.raises(ValueError, match="between 0 and 3/4"):
        Constants(1.0, 1.0, 1.0, eps)
    with pytest.raises(ValueError, match="between 0 and 3/4"):
        Constants.of(problems.PCA.random(4, 2, rng=0), eps)


def test_bad_constants():
    with pytest.raises(TypeError, match="lipschitz must be a number, or one for each matrix"):
        Constants("a", 1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="cross must be >= 0"):
        Constants(1.0, 1.0, -1.0, 0.5)
    with pytest.raises(ValueError, match="a constant f needs no certificate"):
        Constants(0.0, 0.0, 0.0, 0.5)
    with pytest.raises(ValueError, match="minimum must be finite"):
        Constants(1.0, 1.0, 1.0, 0.5, minimum=math.inf)
    for lam in (0.0, -1.0, math.inf, "1"):
        with pytest.raises(ValueError, match="lam must be a positive number"):
            Constants(1.0, 1.0, 1.0, 0.5).mu(lam)


NOT_THE_PAPERS = {
    "it searches along the field": lo.landing(),
    "lam = 0 attracts nothing": lo.landing(step=0.1, lam=0.0),
    "its tangent is Euclidean": lo.landing(step=0.1, tangent=lo.fields.Euclidean()),
    "its tangent is Canonical.metric_scale=1.0": lo.landing(
        step=0.1, tangent=lo.fields.Canonical(metric_scale=1.0)
    ),
    "it follows Momentum": lo.landing(step=0.1, base=lo.estimators.Momentum(0.9)),
    "its move is Pogo": lo.pogo(0.1),
    "its steps are not Safeguarded": lo.Method(lo.searches.OpenLoop(lo.steps.Constant(0.1))),
    "it has no Penalty": lo.Method(
        lo.searches.OpenLoop(lo.steps.Constant(0.1)), field=lo.fields.Field(normal=None)
    ),
}


@pytest.mark.parametrize("reason", NOT_THE_PAPERS)
def test_other_methods(reason):
    problem = problems.Procrustes.random(3, rng=0)
    with pytest.raises(ValueError, match=reason) as caught:
        certify(problem, NOT_THE_PAPERS[reason])
    assert "lo.landing(step=..., lam=...) with lam > 0" in str(caught.value)


def test_no_method():
    problem = problems.Procrustes.random(3, rng=0)
    for method in (None, "landing", lo.landing):
        with pytest.raises(TypeError, match="certify needs the landing of the papers"):
            certify(problem, method)


def test_other_problems():
    method, problem = lo.landing(step=0.1), problems.Procrustes.random(3, rng=0)
    constants = Constants.of(problem, 0.5)
    with pytest.raises(TypeError, match="no hessp"):
        certify(changed(problem, hessp=None), method, constants=constants)
    with pytest.raises(TypeError, match="no fun"):
        certify(changed(problem, fun=None), method, constants=constants)
    blocks = lo.Objective(
        lambda x: 0.0, lambda x: x, hessp=lambda x, v: v, shape={"W": (3, 3), "V": (3, 3)}
    )
    with pytest.raises(TypeError, match="the blocks"):
        certify(blocks, method, constants=constants)
    coupled = lo.Objective(
        lambda x: float(np.sum(x**2)), lambda x: 2 * x, hessp=lambda x, v: 2 * v, shape=(2, 3, 3)
    )
    with pytest.raises(ValueError, match="each matrix of the stack"):
        certify(coupled, method, constants=constants)


def test_constants_that_do_not_fit():
    method, problem = lo.landing(step=0.1, eps=0.5), problems.Procrustes.random(3, rng=0)
    with pytest.raises(ValueError, match="the constants hold on the tube of eps"):
        certify(problem, method, constants=Constants.of(problem, 0.3))
    with pytest.raises(TypeError, match="constants must be"):
        certify(problem, method, constants=3.0)
    # Of a larger tube they hold, too.
    assert certify(problem, method, constants=Constants.of(problem, 0.7), iterations=20, rng=0)
    with pytest.raises(ValueError, match="outside the tube"):
        certify(problem, method, 2.0 * np.eye(3))


def test_the_report():
    problem = problems.Procrustes.random(3, stack=(2,), rng=0)
    report = certify(problem, lo.landing(step=0.01), iterations=30, rng=0)
    text = str(report)
    assert text.startswith(
        "Certificate: no violation at 62 iterates of landing(step=0.01, lam=1) on Procrustes("
    )
    assert f"mu = {min(report.mu):.4g} to {max(report.mu):.4g}" in text
    for name in (*report.violations, "At longer steps, where nothing more is promised"):
        assert name in text
    assert report.nu == pytest.approx(report.mu) and report.step.shape == (2,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.mu = 1.0
