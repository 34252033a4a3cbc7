"""Moves: Newton-Schulz against its polynomial in extended precision, its report, its buffers."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fields import form_at

from landingopt import moves
from landingopt._xp import kernels
from landingopt.fields import BetaMetric, Canonical, Euclidean, Field
from landingopt.objectives import Euclidean as Free
from landingopt.stiefel import NewtonSchulzRun

PSI = Field(Euclidean(exact=False), None)
SHAPES = [(6, 6), (9, 4), (30, 12), (4, 9), (5, 1)]
DTYPES = ["float32", "float64", "complex128"]


def extended(x):
    return x.astype(np.clongdouble if np.iscomplexobj(x) else np.longdouble)


def passes_of(y, tol, **options):
    """``NewtonSchulzRun`` on a copy of y: (x, distance, delta, ok) and the run."""
    k = kernels(y, y.shape[:-2])
    run = NewtonSchulzRun(k, y.shape)
    return run(y.copy(), k.empty(y.shape), tol, **options), run


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize("d", [1e-9, 1e-6, 1e-3, 0.1, 0.85])
def test_one_pass_is_its_polynomial(rng, shape, dtype, d):
    """Y (I - E/2 + 3/8 E^2); E^2 is left out where it saves neither a pass nor a Gram matrix."""
    y = ref.in_tube(rng, shape, d, dtype)
    k = kernels(y, ())
    unit = float(np.finfo(dtype).eps)
    tol = max(0.7 * d**2, 100 * unit)  # E alone would leave 0.75 d^2
    run = NewtonSchulzRun(k, shape, max_passes=1)
    x, bound, delta, ok = run(y.copy(), k.empty(shape), tol)
    assert run.passes == 1
    assert ok
    wide = extended(y)
    e = ref.H(wide) @ wide - np.eye(shape[1])
    expected = wide @ (np.eye(shape[1]) - e / 2 + 3 * e @ e / 8)
    np.testing.assert_allclose(x, expected.astype(dtype), atol=(10 + 250 * (d < 1e-2)) * unit)
    measured = ref.distance(x)
    assert measured <= bound * (1 + 1e-3) + 5 * unit * shape[1]
    if delta is not None:
        new = extended(x)
        new = ref.H(new) @ new - np.eye(shape[1])
        np.testing.assert_allclose(delta, new.astype(dtype), atol=10 * unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1e-4, 0.1, 0.9, 5.0, 300.0])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_newton_schulz_returns_to_the_manifold(rng, shape, dtype, length, tol):
    """Against the naive passes in extended precision; d <= tol, and the report is true."""
    x, g = ref.orthonormal(rng, shape, dtype), ref.gaussian(rng, shape, dtype)
    form = form_at(PSI, x, g)
    eta = length / form.norm()
    k = form.kernels
    moved = (
        moves.NewtonSchulz(tol).start(form.block).apply(form, eta, k.empty(form.block.inner_shape))
    )
    unit = float(np.finfo(dtype).eps)
    assert moved.ok
    assert moved.x.dtype == dtype
    tall = form.block.inner(x)
    expected = ref.newton_schulz(extended(tall) - eta * extended(form.array()), tol, unit=unit)
    rounding = 300 * unit * max(1.0, length)
    np.testing.assert_allclose(moved.x, expected.astype(dtype), atol=rounding)
    measured = ref.distance(moved.x)
    p = tall.shape[1]
    assert measured <= tol + 5 * unit * p
    assert measured <= moved.distance * (1 + 1e-3) + 5 * unit * p
    # A bound, not a guess: where a Gram matrix was formed it is the distance.
    if moved.delta is None:
        assert moved.distance <= 500 * unit
    else:
        assert moved.distance == pytest.approx(measured, rel=1e-3, abs=20 * unit * p)
        assert np.linalg.norm(moved.delta) == pytest.approx(moved.distance, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_newton_schulz_in_every_library(arrays, rng, dtype):
    for shape in [(6, 6), (9, 4), (4, 9), (3, 6, 4)]:
        x, g = ref.orthonormal(rng, shape, dtype), ref.gaussian(rng, shape, dtype)
        form = form_at(PSI, arrays.to(x), arrays.to(g))
        moved = (
            moves.NewtonSchulz()
            .start(form.block)
            .apply(form, 0.2, form.kernels.empty(form.block.inner_shape))
        )
        assert np.all(moved.ok)
        got = arrays.host(moved.x)
        tall = ref.H(x) if shape[-2] < shape[-1] else x
        start = (tall - 0.2 * arrays.host(form.array())).reshape(-1, *tall.shape[-2:])
        for a, b in zip(got.reshape(start.shape), start, strict=True):
            # A stack makes the passes that its last matrix needs: the polar factor is the same.
            np.testing.assert_allclose(a, ref.polar(b), atol=1e-2)
            assert ref.distance(a) <= 1e-2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_last_gram_matrix_is_skipped_where_it_would_tell_nothing(rng, dtype):
    """After a short step one pass lands to rounding: the bound says so and nothing is formed."""
    unit = float(np.finfo(dtype).eps)
    y = ref.in_tube(rng, (12, 5), 0.3 * unit ** (1 / 3), dtype)
    (x, bound, delta, ok), run = passes_of(y, 1e-2)
    assert run.passes == 1
    assert delta is None
    assert ok
    assert bound <= 500 * unit
    assert ref.distance(x) <= bound + 5 * unit * 5
    # Farther away it is formed, and is right.
    (x, bound, delta, ok), run = passes_of(ref.in_tube(rng, (12, 5), 0.1, dtype), 1e-2)
    assert run.passes == 1
    assert np.linalg.norm(delta) == pytest.approx(ref.distance(x), rel=1e-3)


@pytest.mark.parametrize("tol", [1e-3, 1e-9, 1e-12, 2e-14, 1e-17])
def test_more_passes_for_a_smaller_tolerance(rng, tol):
    x, g = ref.orthonormal(rng, (9, 4)), ref.gaussian(rng, (9, 4))
    form = form_at(PSI, x, g)
    move = moves.NewtonSchulz(tol=tol).start(form.block)
    moved = move.apply(form, 0.9 / form.norm(), np.empty((9, 4)))
    assert moved.ok
    assert ref.distance(moved.x) <= max(tol, 2e-15)  # down to rounding, not below it
    assert moved.distance <= max(tol, 4e-15)


def test_at_least_one_pass(rng):
    """The normal step is made within the tolerance too."""
    y = ref.in_tube(rng, (9, 4), 1e-3)
    (x, *_), run = passes_of(y, 1e-2)
    assert run.passes == 1
    assert 1e-8 < ref.distance(x) < 1e-6  # E alone: E^2 would save neither a pass nor a Gram matrix
    (x, *_), run = passes_of(y, 1e-7)
    assert run.passes == 1
    assert ref.distance(x) < 1e-8


# -- failure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_trial_that_is_not_finite_fails_quietly(rng, shape, value):
    y = ref.in_tube(rng, shape, 0.3)
    y[2, 1] = value
    with np.errstate(all="ignore"):  # the search's own
        (_, _, _, ok), run = passes_of(y, 1e-2)
    assert not ok
    assert run.passes == 0


def test_a_rank_deficient_trial_fails(rng):
    x = ref.orthonormal(rng, (6, 4))
    low = x.copy()
    low[:, 1] = 0.0
    (_, distance, _, ok), run = passes_of(low, 1e-2)
    assert not ok
    assert run.passes == 25
    assert distance > 0.9
    low[:, 1] = low[:, 0]
    (_, _, _, ok), _ = passes_of(low, 1e-2)
    assert not ok


def test_too_few_passes_is_a_failure(rng):
    x, g = ref.orthonormal(rng, (9, 4)), ref.gaussian(rng, (9, 4))
    form = form_at(PSI, x, g)
    short, enough = (
        moves.NewtonSchulz(tol=1e-10, max_passes=m)
        .start(form.block)
        .apply(form, 2.0 / form.norm(), np.empty((9, 4)))
        for m in (1, 25)
    )
    assert not short.ok
    assert enough.ok
    assert short.distance == pytest.approx(ref.distance(short.x), rel=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, "rank"])
def test_one_failing_matrix_leaves_the_others_right(arrays, rng, bad):
    y = ref.in_tube(rng, (5, 6, 4), 0.6)
    if bad == "rank":
        y[3, :, 0] = 0.0
    else:
        y[3, 2, 1] = bad
    given = arrays.to(y)
    k = kernels(given, (5,))
    run = NewtonSchulzRun(k, (5, 6, 4))
    with np.errstate(all="ignore"):  # the search's own
        x, distance, _, ok = run(
            given if k.empty((1,)) is None else y.copy(), k.empty(y.shape), 1e-2
        )
    np.testing.assert_array_equal(ok, [True, True, True, False, True])
    if bad != "rank":  # the broken one does not keep the others waiting
        assert run.passes <= 4
    x = arrays.host(x)
    for i in (0, 1, 2, 4):
        np.testing.assert_allclose(x[i], ref.polar(y[i]), atol=1e-2)
        assert ref.distance(x[i]) <= min(1e-2, distance[i] * (1 + 1e-3) + 1e-14)


def test_refusals():
    for tol in (0.0, 0.9, 1.0, -1e-3, np.nan):
        with pytest.raises(ValueError, match="tol must lie strictly between 0 and"):
            moves.NewtonSchulz(tol=tol)
    with pytest.raises(ValueError, match="max_passes must be at least 1"):
        moves.NewtonSchulz(max_passes=0)


# -- buffers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("move", [moves.Additive(), moves.NewtonSchulz(), moves.Pogo()])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 4), (3, 6, 6)])
def test_trials_leave_the_point_as_it_is(arrays, rng, move, shape):
    """x, the field and the first result's values survive any number of trials from one point."""
    x, g = ref.orthonormal(rng, shape), ref.gaussian(rng, shape)
    field = PSI if isinstance(move, moves.NewtonSchulz) else Field()
    form = form_at(field, arrays.to(x), arrays.to(g))
    run = move.start(form.block)
    out, results = form.kernels.empty(form.block.inner_shape), []
    for eta in (0.5, 0.01, 0.2, 0.5):
        moved = run.apply(form, eta, out)
        results.append(arrays.host(moved.x).copy())
        out = moved.x  # what the search hands back for the next trial
        np.testing.assert_array_equal(arrays.host(form.x), x)
    np.testing.assert_array_equal(results[0], results[3])
    fresh = form_at(field, arrays.to(x), arrays.to(g))
    np.testing.assert_array_equal(arrays.host(form.array()), arrays.host(fresh.array()))


@pytest.mark.parametrize("move", [moves.Additive(), moves.NewtonSchulz(), moves.Pogo()])
def test_two_points_never_share_memory(rng, move):
    """A walk over two points in turn, as a search makes it: the previous x stays intact."""
    shape = (9, 4)
    field = PSI if isinstance(move, moves.NewtonSchulz) else Field()
    form = form_at(field, ref.orthonormal(rng, shape), ref.gaussian(rng, shape))
    run, spare = move.start(form.block), np.empty(shape)
    for _ in range(6):
        before = form.x.copy()
        trials = [run.apply(form, 0.3, spare)]
        trials.append(run.apply(form, 0.1, trials[0].x))
        new = trials[-1].x
        assert not np.shares_memory(new, form.x)
        np.testing.assert_array_equal(form.x, before)
        spare = form.x
        form.update(new, ref.gaussian(rng, shape))


def test_a_free_block_is_not_projected(rng):
    x, g = ref.gaussian(rng, (5,)), ref.gaussian(rng, (5,))
    form = form_at(PSI, x, g, Free())
    for move in (moves.NewtonSchulz(), moves.Pogo()):
        moved = move.start(form.block).apply(form, 0.3, np.empty(5))
        np.testing.assert_array_equal(moved.x, x - 0.3 * g)


# -- POGO -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 6, 4), (3, 6, 6), (5, 1)])
@pytest.mark.parametrize("lam", [0.5, 0.2])
def test_pogo_is_its_formula(arrays, rng, shape, dtype, lam):
    x, g = ref.in_tube(rng, shape, 0.3, dtype), ref.gaussian(rng, shape, dtype)
    form = form_at(Field(normal=None), arrays.to(x), arrays.to(g))
    moved = (
        moves.Pogo(lam)
        .start(form.block)
        .apply(form, 0.1, form.kernels.empty(form.block.inner_shape))
    )
    x, g = (ref.H(a) if shape[-2] < shape[-1] else a for a in (x, g))
    flat = [a.reshape(-1, *a.shape[-2:]) for a in (x, g)]
    expected = [ref.pogo(lambda _, b=b: b, a, 0.1, lam, 1)[1] for a, b in zip(*flat, strict=True)]
    got = arrays.host(moved.x)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_allclose(
        got.reshape(np.shape(expected)), expected, atol=60 * np.finfo(dtype).eps
    )


@settings(max_examples=300)
@given(
    shape=st.sampled_from([(1, 1), (5, 5), (6, 3), (3, 6), (9, 1)]),
    dtype=st.sampled_from(["float64", "complex128", "float32"]),
    d=st.floats(0.0, 0.95),
    length=st.floats(-6.0, 1.0).map(lambda exponent: 10.0**exponent),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_bound_of_pogo(shape, dtype, d, length, seed):
    """d_+ <= 3/4 (d + xi^2)^2 + 1/4 (d + xi^2)^3, xi = eta ||R||; along every exact tangent."""
    rng = np.random.default_rng(seed)
    x, g = ref.in_tube(rng, shape, d, dtype), ref.gaussian(rng, shape, dtype)
    for tangent in (Canonical(), Euclidean(), BetaMetric(0.3)):
        form = form_at(Field(tangent, None), x, g)
        norm = float(form.norm())
        eta = length / float(np.linalg.norm(g))
        out = form.kernels.empty(form.block.inner_shape)
        moved = moves.Pogo().start(form.block).apply(form, eta, out)
        size = d + (eta * norm) ** 2
        unit = float(np.finfo(dtype).eps)
        bound = 0.75 * size**2 + 0.25 * size**3
        assert ref.distance(moved.x) <= bound * (1 + 1e3 * unit) + 100 * unit


def test_the_bound_of_pogo_can_fail(rng):
    """Negative control: not with psi, which is not tangent off the manifold, nor with another lam."""
    x, g = ref.in_tube(rng, (9, 4), 0.1), ref.gaussian(rng, (9, 4))
    g = g + 40.0 * x
    broken = 0
    for field, lam in ((PSI, 0.5), (Field(normal=None), 0.3)):
        form = form_at(field, x, g)
        eta = 0.3 / form.norm()
        moved = moves.Pogo(lam).start(form.block).apply(form, eta, np.empty((9, 4)))
        size = 0.1 + 0.3**2
        broken += ref.distance(moved.x) > 0.75 * size**2 + 0.25 * size**3
    assert broken == 2


def test_lam_of_pogo():
    for lam in (0.0, 1.0, -0.5, np.nan, np.inf, "half", None, True):
        with pytest.raises(ValueError, match="lam must lie strictly between 0 and 1"):
            moves.Pogo(lam)
    assert type(moves.Pogo(np.float32(0.5)).lam) is float
