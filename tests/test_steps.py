"""Step rules: the safe step against 60 digits, its guards, and every rule's numbers and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference as ref

import landingopt as lo
from landingopt import steps
from landingopt._xp import FLOATS
from landingopt.fields import BetaMetric, Canonical, Field, FieldRun, LeftForm, Penalty
from landingopt.fields import Euclidean as MetricTangent
from landingopt.objectives import Euclidean, Stiefel
from landingopt.searches.open_loop import BlockNumbers
from landingopt.space import Space

UNIT = 2.0**-52


def point_at(x, gradient, lam=1.0, field=None, constraint=None):
    """An evaluated point of one block, and the context in which a rule starts there."""
    space = Space(tuple(x.shape), constraint or Stiefel(), x)
    run = FieldRun(field or Field(normal=Penalty(lam)))
    point = run.point(space)
    point.place(space.to_blocks(x))
    point.gradient = space.to_blocks(gradient)
    run(point)
    return point, steps.Context(BlockNumbers(space.blocks[0]), lam, space.blocks[0].p ** 0.5)


# -- the formula ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_safe_step_to_rounding(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        eps = rng.uniform(0.02, 0.98)
        d = eps * rng.choice([0.0, 1e-9, rng.uniform(), 1 - 1e-9, 1.0])
        lam, g = 10.0 ** rng.uniform(-3, 3), 10.0 ** rng.uniform(-6, 6)
        # sqrt(eps - d) loses the digits that the subtraction of the given floats does not: none.
        expected = ref.exact_safe_step(d, g, lam, eps)
        got = steps.safe_step(float(d), float(g), float(lam), float(eps), FLOATS)
        assert type(got) is float
        assert got == pytest.approx(expected, rel=8 * UNIT)


@pytest.mark.parametrize("g", [1e200, 1e-25, 1e150, 3.0])
@pytest.mark.parametrize("d", [0.0, 0.2, 0.5])
def test_the_safe_step_at_any_scale(g, d):
    for lam in (1.0, 1e-8, 1e8):
        expected = ref.exact_safe_step(d, g, lam, 0.5)
        got = steps.safe_step(d, g, lam, 0.5, FLOATS)
        assert got == pytest.approx(expected, rel=8 * UNIT, abs=1e-300)


def test_the_cap_and_the_bound():
    # Close to the manifold and with a small field the cap holds; with a large one the bound.
    assert steps.safe_step(0.01, 1e-3, 2.0, 0.5, FLOATS) == 0.25
    bound = steps.safe_step(0.0, 100.0, 2.0, 0.5, FLOATS)
    assert bound == pytest.approx(math.sqrt(0.5) / 100.0, rel=1e-15)
    assert steps.safe_step(0.01, 1e-3, 0.0, 0.5, FLOATS) > 100  # lam = 0: no cap


def test_guards():
    safe = steps.safe_step
    # d a little above eps, by rounding: what the normal term gains back is left.
    over = safe(0.5 * (1 + 1e-13), 10.0, 1.0, 0.5, FLOATS)
    assert over == pytest.approx(2 * 0.25 / 100, rel=1e-12)
    assert safe(0.5 * (1 + 1e-13), 10.0, 0.0, 0.5, FLOATS) == 0.0
    assert safe(2.0, 10.0, 1.0, 0.5, FLOATS) == 0.0  # far outside: no step is safe
    # Nothing moves: any step is safe.
    assert safe(0.0, 0.0, 1.0, 0.5, FLOATS) == 0.5
    assert 1e20 < safe(0.0, 0.0, 0.0, 0.5, FLOATS) < math.inf
    assert safe(0.0, 1e-200, 2.0, 0.5, FLOATS) == 0.25
    assert 0.0 < safe(0.3, 1e300, 1.0, 0.5, FLOATS) < 1e-299


def test_rounding_off_the_tangent_space_shortens_the_step():
    """It moves d to first order: as much as the normal term gains, and no step is left at eps."""
    safe = steps.safe_step
    gain = 2.0 * 0.4 * 0.6
    assert safe(0.4, 30.0, 2.0, 0.5, FLOATS, 0.0) > safe(0.4, 30.0, 2.0, 0.5, FLOATS, 0.1 * gain)
    shorter = safe(0.4, 30.0, 2.0, 0.5, FLOATS, gain)
    assert shorter == pytest.approx(math.sqrt(0.1) / 30.0, rel=1e-14)
    assert safe(0.5, 30.0, 2.0, 0.5, FLOATS, 0.5) == 0.0
    assert safe(0.3, 1e-9, 2.0, 0.5, FLOATS, 1e3) > 0.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_safe_step_of_a_stack(arrays, dtype):
    """One number for each matrix, in the stack's precision, the extremes beside each other."""
    d = np.asarray([0.0, 0.2, 0.5, 0.5000001, 0.0, 0.3], dtype)
    g = np.asarray([3.0, 1e-3, 40.0, 1.0, 0.0, 1e15], dtype)
    space = Space((6, 3, 3), Stiefel(), arrays.to(np.zeros((6, 3, 3), dtype)))
    scalars = space.blocks[0].kernels.scalars
    for lam in (0.0, 1.5):
        got = arrays.host(steps.safe_step(arrays.to(d), arrays.to(g), lam, 0.5, scalars))
        expected = [steps.safe_step(float(a), float(b), lam, 0.5, FLOATS) for a, b in zip(d, g)]
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=20 * np.finfo(dtype).eps)


# -- Safeguarded ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("wanted", [1e-3, 0.1, 1e9])
def test_safeguarded_gives_the_papers_step(rng, shape, scale, wanted):
    """min(wanted, safe step with the exact norm), whichever norm was used to find it."""
    for lam in (0.3, 3.0):
        for d in (0.0, 0.2, 0.4999):
            x, g = ref.in_tube(rng, shape, d), scale * ref.gaussian(rng, shape)
            point, context = point_at(x, g, lam)
            eta = steps.Safeguarded(steps.Constant(wanted)).start(context).size(0, point)
            exact = np.linalg.norm(ref.landing_field(x, g, lam))
            safe = ref.safe_step(np.linalg.norm(ref.H(x) @ x - np.eye(shape[1])), exact, lam, 0.5)
            assert eta == pytest.approx(min(wanted, safe), rel=1e-13)
            assert type(eta) is float


def test_the_free_bound_spares_the_exact_norm(rng):
    """Three regimes: the bound suffices; it would cut but the norm does not; the norm cuts too."""
    x, g = ref.in_tube(rng, (6, 6), 0.3), ref.gaussian(rng, (6, 6))

    def run(wanted):
        point, context = point_at(x, g)
        assert isinstance(point.forms[0], LeftForm)
        eta = steps.Safeguarded(steps.Constant(wanted)).start(context).size(0, point)
        return eta, point.forms[0]._norm is not None

    form = point_at(x, g)[0].forms[0]
    d, low, high = form.distance, form.norm(), form.norm_bound()
    by_bound = ref.safe_step(d, high, 1.0, 0.5)
    by_norm = ref.safe_step(d, low, 1.0, 0.5)
    assert by_bound < 0.99 * by_norm
    assert by_norm < 0.5
    assert run(0.99 * by_bound) == (0.99 * by_bound, False)
    between = 0.5 * (by_bound + by_norm)
    assert run(between) == (between, True)
    eta, exact = run(2.0 * by_norm)
    assert exact
    assert eta == pytest.approx(by_norm, rel=1e-13)


def test_on_a_device_the_exact_norm_is_used_at_once(rng):
    """Comparing with the free bound would read a number back."""
    point, context = point_at(ref.in_tube(rng, (6, 6), 0.3), ref.gaussian(rng, (6, 6)))
    device = steps.Context(context.numbers, context.lam, context.first_size, accelerator=True)
    steps.Safeguarded(steps.Constant(1e-6)).start(device).size(0, point)
    assert point.forms[0]._norm is not None


@pytest.mark.parametrize("shape", [(5, 6, 6), (5, 7, 4)])
def test_each_matrix_of_a_stack_has_its_own_safe_step(rng, shape):
    x, g = ref.in_tube(rng, shape, 0.4), ref.gaussian(rng, shape)
    g *= np.asarray([1e-3, 0.1, 1.0, 10.0, 1e3])[:, None, None]
    point, context = point_at(x, g)
    eta = steps.Safeguarded(steps.Constant(0.3)).start(context).size(0, point)
    singles = []
    for a, b in zip(x, g, strict=True):
        point, context = point_at(a, b)
        singles.append(steps.Safeguarded(steps.Constant(0.3)).start(context).size(0, point))
    np.testing.assert_allclose(eta, singles, rtol=1e-12)
    assert singles[0] == 0.3
    assert singles[-1] < 1e-2


def test_a_free_block_has_no_safe_step(rng):
    g = 1e6 * ref.gaussian(rng, (5,))
    point, context = point_at(ref.gaussian(rng, (5,)), g, 0.0, constraint=Euclidean())
    assert steps.Safeguarded(steps.Constant(0.7)).start(context).size(0, point) == 0.7


@pytest.mark.parametrize("eps", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_safeguarded_refuses_an_eps_outside_0_1(eps):
    with pytest.raises(ValueError, match="eps must lie strictly between 0 and 1"):
        steps.Safeguarded(steps.Constant(0.1), eps)


# -- the exact exit ---------------------------------------------------------------------------


def sizes_of(x, g, lam, eps, tangent=None, wanted=1e300):
    """(by the bound, by the exact exit, the field) of one setting."""
    field = Field(tangent or Canonical(), Penalty(lam))
    found = []
    for exact in (False, True):
        point, context = point_at(x, g, lam, field=field)
        rule = steps.Safeguarded(steps.Constant(wanted), eps, exact=exact).start(context)
        found.append(rule.size(0, point))
    return *found, point.forms[0]


TANGENTS = [Canonical(), Canonical(1.0), MetricTangent(), BetaMetric(0.2), BetaMetric(5.0)]


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_the_exact_exit_is_never_shorter_and_stays_inside(dtype):
    """Over random cases; the whole way lies in the tube, and a little farther does not."""
    rng = np.random.default_rng(0)
    unit, ratios = float(np.finfo(dtype).eps), []
    for i in range(1500):
        shape = [(3, 3), (5, 5), (6, 3), (10, 4), (4, 1)][rng.integers(5)]
        lam, eps = 10.0 ** rng.uniform(-2, 2), rng.uniform(0.05, 0.95)
        x = ref.in_tube(rng, shape, eps * rng.choice([0.0, rng.uniform(), 1.0]), dtype)
        g = (10.0 ** rng.uniform(-3, 3) * ref.gaussian(rng, shape, dtype)).astype(dtype)
        bound, exact, form = sizes_of(x, g, lam, eps, TANGENTS[i % len(TANGENTS)])
        assert exact >= bound
        ratios.append(exact / bound if bound else math.inf)  # at the wall rounding may take it all
        field = form.array().astype(np.result_type(dtype, np.float64))
        for share in (*np.linspace(0.05, 0.95, 7), 1.0):
            assert ref.distance(x - share * exact * field) <= eps + 10 * unit * shape[1]
        if exact > 1.0001 * bound:
            assert ref.distance(x - 1.001 * exact * field) > eps * (1 - 100 * unit)
    assert 1.9 <= np.median(ratios) <= 3.0


@pytest.mark.parametrize("scale", [1e-25, 1e-5, 1e30, 1e150])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 4)])
def test_the_exact_exit_at_any_scale(rng, shape, scale):
    """Without attraction a step times its gradient has no scale."""
    x, g = ref.in_tube(rng, shape, 0.2), ref.gaussian(rng, shape)
    _, one, _ = sizes_of(x, g, 0.0, 0.5)
    _, got, _ = sizes_of(x, scale * g, 0.0, 0.5)
    np.testing.assert_allclose(np.asarray(got) * scale, one, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_exact_exit_where_nothing_moves(rng, shape):
    """F = 0: as by the bound, any step, or the cap."""
    x = ref.orthonormal(rng, shape)
    for lam, wanted in ((0.0, 7.0), (2.0, 7.0)):
        bound, exact, _ = sizes_of(x, 0.0 * x, lam, 0.5, wanted=wanted)
        assert exact >= bound > 0.0
        assert np.isfinite(exact)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
@pytest.mark.parametrize("over", [-1e-12, -1e-15, 0.0, 1e-15, 1e-12])
def test_at_the_wall_the_exit_is_not_the_way_in(rng, shape, over):
    """d equal to eps up to rounding, attraction inward: a long step is left, and it leads inside."""
    x, g = ref.in_tube(rng, shape, 0.5), 0.1 * ref.gaussian(rng, shape)
    d = np.linalg.norm(ref.H(x) @ x - np.eye(shape[1]))
    _, exact, form = sizes_of(x, g, 1.0, d * (1.0 - over))
    assert exact > 0.3
    inside = [ref.distance(x - t * exact * form.array()) for t in (0.1, 0.5, 0.9)]
    assert max(inside) < 0.5 * (1 - 1e-3)


def test_rounding_off_the_tangent_space_is_seen(rng):
    """T is the assembled field's: with psi at the wall, which drifts out, no step is left."""
    x, g = ref.in_tube(rng, (9, 4), 0.5), ref.gaussian(rng, (9, 4))
    d = np.linalg.norm(ref.H(x) @ x - np.eye(4))
    field = Field(MetricTangent(exact=False), Penalty(1e-6))
    for sign in (1.0, -1.0):
        point, context = point_at(x, sign * g, 1e-6, field=field)
        run = steps.Safeguarded(steps.Constant(1.0), d, exact=True).start(context)
        outward = np.sum((ref.H(x) @ x - np.eye(4)) * ref.sym(ref.H(x) @ point.forms[0].array()))
        exit_ = run._exit(point.forms[0])
        assert (exit_ > 1e-3) == (outward > 0)


@pytest.mark.parametrize("shape", [(5, 6, 6), (5, 7, 4)])
def test_each_matrix_of_a_stack_has_its_own_exit(arrays, rng, shape):
    x, g = ref.in_tube(rng, shape, 0.4), ref.gaussian(rng, shape)
    g *= np.asarray([1e-3, 0.1, 1.0, 10.0, 1e3])[:, None, None]
    _, eta, _ = sizes_of(arrays.to(x), arrays.to(g), 1.0, 0.5, wanted=0.8)
    singles = [sizes_of(a, b, 1.0, 0.5, wanted=0.8)[1] for a, b in zip(x, g, strict=True)]
    np.testing.assert_allclose(arrays.host(eta), singles, rtol=1e-12)
    assert type(singles[0]) is float
    assert singles[0] == 0.8
    assert singles[-1] < 0.1


def test_the_exact_exit_is_formed_only_where_the_bound_would_cut(rng):
    x, g = ref.in_tube(rng, (6, 6), 0.3), ref.gaussian(rng, (6, 6))
    bound, exact, _ = sizes_of(x, g, 1.0, 0.5)
    assert exact > 1.1 * bound

    def used(wanted, **options):
        point, context = point_at(x, g)
        context = steps.Context(context.numbers, 1.0, 1.0, **options)
        run, calls = steps.Safeguarded(steps.Constant(wanted), exact=True).start(context), []
        form = point.forms[0]
        form.curve, curve = lambda t: calls.append(1) or curve(t), form.curve
        return run.size(0, point), len(calls)

    assert used(0.99 * bound) == (0.99 * bound, 0)
    between = 0.5 * (bound + exact)
    assert used(between) == (between, 1)
    assert used(2.0 * exact) == (pytest.approx(exact), 1)
    assert used(0.01 * bound, accelerator=True) == (0.01 * bound, 1)  # comparing would read too


def test_on_a_device_one_transfer_is_read(rng, monkeypatch):
    """The six numbers of the quartic for the exact exit; nothing for the bound."""
    strict = pytest.importorskip("array_api_strict")
    from landingopt import _xp

    device = strict.Device("device1")
    x, g = ref.in_tube(rng, (3, 6, 4), 0.3), ref.gaussian(rng, (3, 6, 4))
    x, g = (strict.asarray(a, device=device) for a in (x, g))
    reads, to_host = [], _xp.to_host
    monkeypatch.setattr(_xp, "to_host", lambda a: reads.append(a.shape) or to_host(a))
    for exact, expected in ((False, []), (True, [(6, 3)])):
        point, context = point_at(x, g)
        context = steps.Context(context.numbers, 1.0, 1.0, accelerator=True)
        reads.clear()
        rule = steps.Safeguarded(steps.Constant(1.0), exact=exact).start(context)
        rule.size(0, point)
        assert reads == expected


def test_exact_is_a_flag():
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match="exact must be True or False"):
            steps.Safeguarded(steps.Constant(0.1), exact=value)


@pytest.mark.parametrize("seed", range(4))
def test_the_first_exit_of_a_quartic(seed):
    """Against its known roots: four real, two, twofold, and of very different sizes."""
    rng = np.random.default_rng(seed)
    quartics, expected = [], []
    while len(expected) < 300:
        kind = len(expected) % 4
        if kind == 0:
            roots = np.sort(rng.uniform(-2, 3, 4))
        elif kind == 1:
            z = rng.normal() + 1j * rng.normal()
            roots = np.array([z, np.conj(z), -rng.uniform(0, 2), rng.uniform(0, 2)])
        elif kind == 2:  # a local minimum at zero distance from the wall, before the way out
            a = rng.uniform(0.1, 0.9)
            roots = np.array([-1.0, a + 1e-3j, a - 1e-3j, rng.uniform(1, 3)])
        else:
            roots = np.array([-1e-9, 10.0 ** rng.uniform(-8, 3), *-rng.uniform(0, 10, 2)])
        c = np.poly(roots)[::-1].real * 10.0 ** rng.uniform(-3, 3)
        if c[0] > 0:
            continue
        quartics.append(c)
        expected.append(min(r.real for r in roots if r.real > 0 and r.imag == 0))
    together = steps.first_exit(np.asarray(quartics))
    np.testing.assert_allclose(together, expected, rtol=1e-9)
    for c, u, root in zip(quartics, together, expected, strict=True):
        assert steps.first_exit(c) == pytest.approx(u, rel=1e-13)
        value = c[0] + u * (c[1] + u * (c[2] + u * (c[3] + u * c[4])))
        assert value <= 0.0
        assert u == pytest.approx(root, rel=1e-9)


def test_the_first_exit_of_a_quartic_at_its_corners():
    exit_of = steps.first_exit
    assert exit_of(np.array([0.0, 1.0, 0.0, 0.0, 1.0])) == 0.0  # out at once
    assert exit_of(np.array([0.0, 0.0, 0.0, 0.0, 1.0])) == 0.0
    assert exit_of(np.array([0.0, -1.0, 0.0, 0.0, 1.0])) == pytest.approx(1.0, rel=1e-14)
    assert exit_of(np.array([1e-16, -1.0, 0.0, 0.0, 1.0])) == pytest.approx(1.0, rel=1e-14)
    assert exit_of(np.array([1.0, 1.0, 0.0, 0.0, 1.0])) == 0.0  # outside, and no way in
    for bad in (np.nan, np.inf):
        assert exit_of(np.array([-1.0, bad, 0.0, 0.0, 1.0])) == 0.0
    stack = np.array([[-1.0, 0, 0, 0, 1], [np.nan, 0, 0, 0, 1], [-16.0, 0, 0, 0, 1]])
    np.testing.assert_allclose(exit_of(stack), [1.0, 0.0, 2.0], rtol=1e-14)


# -- rules fixed in advance -------------------------------------------------------------------


def test_constant_decay_schedule():
    assert [steps.Constant(0.3).size(k, None) for k in (0, 7)] == [0.3, 0.3]
    assert type(steps.Constant(np.float32(0.5)).step) is float  # NEP 50: no silent promotion
    decay = steps.Decay(2.0, power=0.5, offset=50)
    for k in (0, 1, 50, 1000):
        assert decay.size(k, None) == pytest.approx(2.0 / math.sqrt(1 + k / 50), rel=1e-15)
    assert steps.Decay(1.0).size(3, None) == 0.5
    assert steps.Decay(1.0, power=0.0).size(99, None) == 1.0
    assert steps.Decay(1.0, power=1.0, offset=3.0).size(3, None) == 0.5
    schedule = steps.Schedule(lambda k: 0.1 / 10 ** (k // 50))
    assert [schedule.size(k, None) for k in (0, 49, 50, 120)] == [0.1, 0.1, 0.01, 0.001]
    assert type(steps.Schedule(lambda k: np.float32(0.5)).size(0, None)) is float


def test_recipes_compare_print_and_are_frozen():
    assert steps.Constant(0.1) == steps.Constant(0.1)
    assert steps.Safeguarded(steps.Constant(0.1)) != steps.Safeguarded(steps.Constant(0.1), 0.4)
    assert repr(steps.Decay(1.0)) == "Decay(step=1.0, power=0.5, offset=1.0)"
    with pytest.raises(AttributeError):
        steps.Constant(0.1).step = 0.2


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_step_must_be_positive_and_finite(value):
    for make in (steps.Constant, steps.Decay, steps.BarzilaiBorwein):
        with pytest.raises(ValueError, match="positive and finite"):
            make(value)
    with pytest.raises(ValueError, match="offset must be positive"):
        steps.Decay(1.0, offset=value)
    with pytest.raises(ValueError, match="iteration 3"):
        steps.Schedule(lambda k: value).size(3, None)


def test_a_step_must_be_a_number():
    with pytest.raises(TypeError, match="'fast'"):
        steps.Constant("fast")
    with pytest.raises(TypeError, match="callable"):
        steps.Schedule(0.1)
    with pytest.raises(TypeError, match="iteration 0"):
        steps.Schedule(lambda k: None).size(0, None)
    for power in (-0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="power"):
            steps.Decay(1.0, power=power)


# -- Barzilai-Borwein -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_barzilai_borwein_is_its_formula(rng, shape, dtype):
    x0, x1 = ref.in_tube(rng, shape, 0.2, dtype), ref.in_tube(rng, shape, 0.3, dtype)
    g0, g1 = ref.gaussian(rng, shape, dtype), ref.gaussian(rng, shape, dtype)
    first, context = point_at(x0, g0)
    second, _ = point_at(x1, g1)
    second.previous, second.iteration = first, 1
    tall = ref.H if shape[0] < shape[1] else lambda a: a
    f0, f1 = (ref.landing_field(tall(x), tall(g), 1.0) for x, g in ((x0, g0), (x1, g1)))
    s, y = tall(x1) - tall(x0), f1 - f0
    run = steps.BarzilaiBorwein().start(context)
    p = min(shape)
    assert run.size(0, first) == pytest.approx(0.4 * p**0.5 / np.linalg.norm(f0), rel=1e-12)
    even = ref.inner(s, s) / abs(ref.inner(s, y))
    odd = abs(ref.inner(s, y)) / ref.inner(y, y)
    assert even != pytest.approx(odd, rel=0.1)
    for k, expected in {1: odd, 2: even, 3: odd, 4: even}.items():
        assert run.size(k, second) == pytest.approx(expected, rel=1e-12)


def test_barzilai_borwein_per_matrix(rng):
    shape = (4, 5, 3)
    x0, x1 = ref.in_tube(rng, shape, 0.2), ref.in_tube(rng, shape, 0.3)
    g0, g1 = ref.gaussian(rng, shape), ref.gaussian(rng, shape)

    def sizes(x0, g0, x1, g1):
        first, context = point_at(x0, g0)
        second, _ = point_at(x1, g1)
        run = steps.BarzilaiBorwein().start(context)
        out = [run.size(0, first)]
        second.previous = first
        return [*out, run.size(1, second), run.size(2, second)]

    stack = np.asarray(sizes(x0, g0, x1, g1))
    singles = np.asarray([sizes(*each) for each in zip(x0, g0, x1, g1, strict=True)]).T
    np.testing.assert_allclose(stack, singles, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 4)])
def test_barzilai_borwein_repeats_the_accepted_step_where_it_has_no_answer(rng, shape):
    """Nothing moved, so <s, y> = 0: the step that was taken last, and no warning."""
    x, g = ref.in_tube(rng, shape, 0.2), ref.gaussian(rng, shape)
    first, context = point_at(x, g)
    second, _ = point_at(x, g)
    second.previous = first
    run = steps.BarzilaiBorwein().start(context)
    start = run.size(0, first)
    for k in (1, 2):
        np.testing.assert_array_equal(run.size(k, second), start)
    second.step = 0.5 * np.asarray(start) if len(shape) > 2 else 0.5 * start
    for k in (1, 2):
        np.testing.assert_array_equal(run.size(k, second), 0.5 * np.asarray(start))


def test_barzilai_borwein_starts_where_the_field_vanishes(rng):
    for shape in [(6, 6), (3, 6, 4)]:
        x = ref.orthonormal(rng, shape)
        field = Field(normal=None)
        point, context = point_at(x, 0.0 * x, field=field)
        size = steps.BarzilaiBorwein().start(context).size(0, point)
        assert np.all(np.isfinite(size))
        assert np.all(np.asarray(size) > 0)


@pytest.mark.parametrize("scale", [1e-140, 1e140])
def test_barzilai_borwein_at_any_scale(rng, scale):
    x0, x1 = ref.in_tube(rng, (6, 4), 0.2), ref.in_tube(rng, (6, 4), 0.3)
    g0, g1 = ref.gaussian(rng, (6, 4)), ref.gaussian(rng, (6, 4))

    def sizes(scale):
        first, context = point_at(x0, scale * g0, field=Field(normal=None))
        second, _ = point_at(x1, scale * g1, field=Field(normal=None))
        second.previous = first
        run = steps.BarzilaiBorwein().start(context)
        return [run.size(0, first), run.size(1, second), run.size(2, second)]

    np.testing.assert_allclose(np.asarray(sizes(scale)) * scale, sizes(1.0), rtol=1e-10)


def test_barzilai_borwein_turns_adaptive():
    """From ``alternate`` on: ABBmin with its moving threshold, against a naive loop."""
    rng = np.random.default_rng(3)
    u = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    k = (u * np.logspace(0, -3, 12)) @ u.T
    problem = lo.problems.PCA.from_covariance((k + k.T) / 2, 3)
    guess = lo.steps.BarzilaiBorwein(alternate=4, threshold=0.6, memory=3)
    method = lo.Method(
        search=lo.searches.LineSearch(guess=guess),
        field=lo.fields.Field(lo.fields.Euclidean(exact=False), None),
        move=lo.moves.NewtonSchulz(tol=1e-13),
    )
    xs = []
    trace = lo.minimize(
        problem,
        method=method,
        rng=0,
        stop=lo.MaxIterations(30),
        callback=lambda row: xs.append(row.x.copy()),
    ).trace

    def psi(x):
        g = problem.grad(x)
        c = x.T @ g
        return g - x @ (c + c.T) / 2

    threshold, shorts, agree, adaptive = 0.6, [], 0, set()
    for i in range(1, 30):
        s, y = xs[i] - xs[i - 1], psi(xs[i]) - psi(xs[i - 1])
        long, short = np.sum(s * s) / abs(np.sum(s * y)), abs(np.sum(s * y)) / np.sum(y * y)
        shorts = [*shorts, short][-3:]
        if i < 4:
            wanted = long if i % 2 == 0 else short
        elif short < threshold * long:
            wanted, threshold = min(shorts), 0.9 * threshold
            adaptive.add("short")
        else:
            wanted, threshold = long, 1.1 * threshold
            adaptive.add("long")
        taken = trace["step"][i + 1]
        agree += abs(taken - wanted) <= 1e-6 * wanted
        assert taken <= wanted * (1 + 1e-6)  # the search and the cap only shorten
    assert adaptive == {"short", "long"}
    assert agree >= 20
