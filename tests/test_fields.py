"""Fields: the identities of the landing to rounding, on asymmetric random data."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

from landingopt import _blas
from landingopt.fields import (
    BetaMetric,
    Canonical,
    Euclidean,
    Field,
    Form,
    LeftForm,
    NearTangent,
    Penalty,
    RightForm,
)
from landingopt.objectives import Euclidean as Free
from landingopt.objectives import Stiefel
from landingopt.space import Space

SHAPES = [(6, 6), (9, 4), (4, 9), (3, 6, 6), (3, 7, 4), (5, 1)]
PSI = Euclidean(exact=False)
DTYPES = ["float32", "float64", "complex64", "complex128"]


def form_at(field, x, gradient, constraint=None) -> Form:
    """The field on one block, evaluated at x; x and gradient in the user's form."""
    space = Space(tuple(x.shape), constraint or Stiefel(), x)
    run = field.start(space)
    point = run.point(space)
    point.place(space.to_blocks(x))
    point.gradient = space.to_blocks(gradient)
    run(point)
    return point.forms[0]


def tall(x):
    return ref.H(x) if x.shape[-2] < x.shape[-1] else x


def naive(function, x, g):
    """``function`` of each tall matrix."""
    x, g = tall(x), tall(g)
    flat = zip(x.reshape(-1, *x.shape[-2:]), g.reshape(-1, *g.shape[-2:]), strict=True)
    return np.reshape([function(a, b) for a, b in flat], (*x.shape[:-2], *np.shape(x)[-2:]))


def data(rng, shape, dtype, d=0.4, scale=1.0):
    g = ref.gaussian(rng, shape, dtype) * np.asarray(scale, dtype).real
    return ref.in_tube(rng, shape, d, dtype), g


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lam", [0.0, 0.7, 5.0])
def test_the_landing_field_is_its_definition(arrays, rng, shape, dtype, lam):
    x, g = data(rng, shape, dtype)
    form = form_at(Field(normal=Penalty(lam) if lam else None), arrays.to(x), arrays.to(g))
    expected = naive(lambda a, b: ref.landing_field(a, b, lam), x, g)
    atol = 60 * np.finfo(dtype).eps
    np.testing.assert_allclose(arrays.host(form.array()), expected, atol=atol)
    norms = np.linalg.norm(expected, axis=(-2, -1))
    got = form.norm() if isinstance(form.norm(), float) else arrays.host(form.norm())
    np.testing.assert_allclose(got, norms, rtol=atol)
    for eta in (0.3, 1e-3):
        moved = arrays.host(form.moved(eta, form.kernels.empty(form.block.inner_shape)))
        np.testing.assert_allclose(moved, tall(x) - eta * expected, atol=atol)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6)])
def test_left_form_is_right_form(rng, shape, dtype):
    x, g = data(rng, shape, dtype)
    left = form_at(Field(normal=Penalty(0.7)), x, g)
    assert isinstance(left, LeftForm)
    right = RightForm(left.block, Canonical(), Penalty(0.7))
    right.update(x, g)
    np.testing.assert_allclose(left.distance, right.distance, rtol=1e-13)
    np.testing.assert_allclose(left.norm(), right.norm(), rtol=1e-13)
    np.testing.assert_allclose(left.array(), right.array(), atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 7, 4)])
def test_left_form_moves_alike_with_and_without_its_array(rng, shape):
    """``moved`` multiplies where the array was not asked for, and adds where it was."""
    x, g = data(rng, shape, "float64")
    lazy = form_at(Field(), x, g)
    first = lazy.moved(0.3, lazy.kernels.empty(lazy.block.inner_shape)).copy()
    again = lazy.moved(0.3, lazy.kernels.empty(lazy.block.inner_shape)).copy()
    np.testing.assert_array_equal(first, again)
    lazy.norm()
    formed = lazy.moved(0.3, lazy.kernels.empty(lazy.block.inner_shape))
    np.testing.assert_allclose(first, formed, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
@pytest.mark.parametrize("d", [0.0, 1e-3, 0.45])
def test_tangent_and_normal_terms_are_orthogonal(rng, shape, dtype, d):
    """<R, X Delta> = 0 at every X, not on the manifold only."""
    x, g = data(rng, shape, dtype, d)
    tangent = form_at(Field(normal=None), x, g).array()
    a = tall(x).astype(np.result_type(dtype, np.float64))
    normal = a @ (ref.H(a) @ a - np.eye(a.shape[1]))
    size = np.linalg.norm(g) * np.linalg.norm(normal)
    rounding = 30 * np.finfo(dtype).eps * (size + 0.1 * np.linalg.norm(g))
    assert abs(ref.inner(tangent, normal)) <= rounding
    if d > 0.1:  # the identity can fail: the Euclidean projection is not tangent off the manifold
        psi = form_at(Field(PSI, None), x, g).array()
        assert abs(ref.inner(psi, normal)) > 1e-5 * size


def one_step_defect(x, form, eta, lam):
    """How far X - eta Lambda is from the exact identity for its Delta, relative to eta."""
    one = np.eye(x.shape[1])
    delta = ref.H(x) @ x - one
    field = form.array()
    after = form.moved(eta, form.kernels.empty(form.block.inner_shape))
    new = ref.H(after) @ after - one
    rest = delta - 2 * eta * lam * (delta + delta @ delta) + eta**2 * ref.H(field) @ field
    return np.linalg.norm(new - rest) / eta


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize(("eta", "lam"), [(0.3, 0.7), (1.0, 2.0), (1e-2, 40.0)])
def test_one_step_identity(rng, shape, dtype, eta, lam):
    """Delta_+ = (1 - 2 eta lam) Delta - 2 eta lam Delta^2 + eta^2 Lambda^H Lambda, exactly."""
    x, g = data(rng, shape, dtype)
    assert one_step_defect(x, form_at(Field(normal=Penalty(lam)), x, g), eta, lam) < 1e-11


def test_one_step_identity_detects_a_missing_term(rng):
    """Negative control: no normal term, another lam and another tangent are all seen."""
    x, g = data(rng, (9, 4), "float64")
    for field in (
        Field(normal=None),
        Field(normal=Penalty(0.6)),
        Field(PSI, Penalty(0.7)),
    ):
        assert one_step_defect(x, form_at(field, x, g), 0.3, 0.7) > 1e-3
    assert one_step_defect(x, form_at(Field(normal=Penalty(0.7)), x, g), 0.3, 0.7) < 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_euclidean_tangent(arrays, rng, shape, dtype):
    x, g = data(rng, shape, dtype)
    form = form_at(Field(PSI, None), arrays.to(x), arrays.to(g))
    expected = naive(lambda a, b: b - a @ ref.sym(ref.H(a) @ b), x, g)
    np.testing.assert_allclose(arrays.host(form.array()), expected, atol=60 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(9, 4), (6, 6), (4, 9)])
def test_the_euclidean_tangent_on_the_manifold(rng, shape):
    """There it is the Riemannian gradient: tangent, and G less its normal part."""
    x, g = ref.orthonormal(rng, shape), ref.gaussian(rng, shape)
    psi = form_at(Field(PSI, None), x, g).array()
    x, g = tall(x), tall(g)
    assert np.linalg.norm(ref.sym(ref.H(x) @ psi)) < 1e-13
    assert ref.inner(psi, g) == pytest.approx(ref.inner(psi, psi))
    # MATH "metric scale": R = X skew(S_G) + W/2 for G = X S_G + W.
    r = form_at(Field(normal=None), x, g).array()
    part = ref.H(x) @ g
    np.testing.assert_allclose(r, x @ ref.skew(part) + (g - x @ part) / 2, atol=1e-13)


class Doubled:
    """A user's own tangent term."""

    needs_gram = True

    def coefficients(self, kernels, delta, cross):
        a, b = Canonical().coefficients(kernels, delta, cross)
        return kernels.scale(a, 2.0), kernels.scale(b, 2.0)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 7, 4)])
def test_coefficients_add(rng, shape):
    """F = G A + X B: terms are coefficients, and a sum of terms is the sum of the fields."""
    x, g = data(rng, shape, "float64")
    r = form_at(Field(normal=None), x, g).array()
    normal = form_at(Field(normal=Penalty(3.0)), x, 0.0 * g).array()
    psi = form_at(Field(PSI, None), x, g).array()
    both = {
        Field(normal=Penalty(3.0)): r + normal,
        Field(PSI, Penalty(3.0)): psi + normal,
        Field(Doubled(), Penalty(3.0)): 2 * r + normal,
        Field(Doubled(), None): 2 * r,
    }
    for field, expected in both.items():
        np.testing.assert_allclose(form_at(field, x, g).array(), expected, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 6)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_free_bound_is_a_bound(rng, shape, dtype, scale):
    x, g = data(rng, shape, dtype, 0.45, scale)
    form = form_at(Field(normal=Penalty(0.7)), x, g)
    bound, norm = np.asarray(form.norm_bound()), np.asarray(form.norm())
    assert np.all(bound >= norm * (1 - 10 * np.finfo(dtype).eps))
    # and not a loose one; of a tall matrix it has terms of the order of the distance, 0.45 here
    assert np.all(bound <= norm * (np.sqrt(1.45 / 0.55) if shape[-2] == shape[-1] else 3.0))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 6)])
def test_norms_neither_overflow_nor_vanish(rng, shape, scale):
    x, g = data(rng, shape, "float64")
    one = form_at(Field(normal=None), x, g)
    form = form_at(Field(normal=None), x, g * scale)
    with np.errstate(over="ignore", under="ignore"):  # as in the loop
        form.norm(), form.norm_bound()
    np.testing.assert_allclose(form.norm(), np.asarray(one.norm()) * scale, rtol=1e-12)
    np.testing.assert_allclose(form.norm_bound(), np.asarray(one.norm_bound()) * scale, rtol=1e-12)


def test_the_distance_comes_with_the_field(rng):
    for shape in [(6, 6), (9, 4), (4, 9)]:
        x, g = data(rng, shape, "float64", 0.37)
        assert form_at(Field(), x, g).distance == pytest.approx(0.37, rel=1e-13)
    assert form_at(Field(PSI, None), x, g).distance is None  # no Gram matrix was formed


def test_a_free_block_follows_its_gradient(rng):
    for shape in [(5,), (4, 3), (2, 3, 4)]:
        x, g = ref.gaussian(rng, shape), ref.gaussian(rng, shape)
        form = form_at(Field(), x, g, Free())
        np.testing.assert_array_equal(form.array(), g)
        assert form.norm() == pytest.approx(np.sqrt(np.sum(g**2)))
        np.testing.assert_array_equal(form.moved(0.3, np.empty(shape)), x - 0.3 * g)


@pytest.mark.parametrize("field", [Field(), Field(PSI, None), Field(normal=None)])
def test_a_form_keeps_nothing_of_the_gradient(arrays, rng, field):
    """The user's gradient may live in a buffer that the next call rewrites."""
    for shape, constraint in [((6, 6), Stiefel()), ((9, 4), Stiefel()), ((4, 3), Free())]:
        x, g = data(rng, shape, "float64") if shape[0] > 4 else (ref.gaussian(rng, shape),) * 2
        held = arrays.to(g.copy())
        form = form_at(field, arrays.to(x), held, constraint)
        expected = arrays.host(form.array()).copy()
        if arrays.name == "numpy-readonly":
            held.flags.writeable = True
        held[...] = 7.0
        np.testing.assert_array_equal(arrays.host(form.array()), expected)


def test_evaluation_is_done_once(rng):
    x, g = data(rng, (9, 4), "float64")
    space = Space((9, 4), Stiefel(), x)
    run = Field().start(space)
    point = run.point(space)
    point.place([x])
    point.gradient = [g]
    run(point)
    before = point.forms[0].array().copy()
    point.gradient = [2 * g]
    run(point)  # a no-op where the field has been evaluated
    np.testing.assert_array_equal(point.forms[0].array(), before)
    point.place([x])
    point.gradient = [2 * g]
    run(point)
    assert np.linalg.norm(point.forms[0].array() - before) > 1.0


# -- tangents of other metrics ----------------------------------------------------------------

# name: (tangent, beta of its metric, its scale)
TANGENTS = {
    "canonical R": (Canonical(), 0.5, 0.5),
    "canonical": (Canonical(metric_scale=1.0), 0.5, 1.0),
    "canonical, scaled": (Canonical(metric_scale=3.0), 0.5, 3.0),
    "Euclidean": (Euclidean(), 1.0, 1.0),
    "Euclidean, scaled": (Euclidean(metric_scale=0.3), 1.0, 0.3),
    "beta": (BetaMetric(0.3), 0.3, 1.0),
    "beta, scaled": (BetaMetric(4.0, metric_scale=0.3), 4.0, 0.3),
    "beta = 1/2": (BetaMetric(0.5), 0.5, 1.0),
}
tangents = pytest.mark.parametrize("name", TANGENTS)


@tangents
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (3, 7, 4)])
def test_every_tangent_is_its_formula(arrays, rng, shape, dtype, name):
    tangent, beta, scale = TANGENTS[name]
    x, g = data(rng, shape, dtype)
    form = form_at(Field(tangent, Penalty(0.7)), arrays.to(x), arrays.to(g))
    expected = naive(
        lambda a, b: scale * ref.beta_metric(a, b, beta) + ref.landing_field(a, 0 * b, 0.7), x, g
    )
    atol = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(arrays.host(form.array()), expected, atol=atol)
    assert arrays.host(form.array()).dtype == np.dtype(dtype)


@tangents
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
@pytest.mark.parametrize("d", [0.0, 0.3, 0.9])
def test_every_tangent_is_tangent_off_the_manifold(rng, shape, dtype, d, name):
    """X^H F is skew at every X; psi's is not."""

    def hermitian_part(tangent):
        f = form_at(Field(tangent, None), x, g).array()
        wide = tall(x).astype(np.result_type(dtype, np.float64))
        return np.linalg.norm(ref.sym(ref.H(wide) @ f)) / np.linalg.norm(g)

    x, g = data(rng, shape, dtype, d)
    tangent, beta, scale = TANGENTS[name]
    rounding = 30 * scale * (2.0 + 1.0 / beta) * np.finfo(dtype).eps
    assert hermitian_part(tangent) <= rounding
    if d > 0.1:
        assert hermitian_part(PSI) > 1e-3


@tangents
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 7, 4)])
def test_on_the_manifold_a_tangent_is_its_riemannian_gradient(rng, shape, dtype, name):
    tangent, beta, scale = TANGENTS[name]
    x, g = ref.orthonormal(rng, shape, dtype), ref.gaussian(rng, shape, dtype)
    got = form_at(Field(tangent, None), x, g).array()
    expected = naive(lambda a, b: scale * ref.riemannian_gradient(a, b, beta), x, g)
    np.testing.assert_allclose(got, expected, atol=1e-13)
    if beta == 0.5:
        np.testing.assert_allclose(
            got, naive(lambda a, b: scale * (b - a @ ref.H(b) @ a), x, g), atol=1e-13
        )


@tangents
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_riemannian_gradient_represents_the_derivative(rng, dtype, name):
    """g(grad f, V) = Re <G, V> for every tangent V, in the metric that the tangent names."""
    tangent, beta, scale = TANGENTS[name]
    x, g = ref.orthonormal(rng, (9, 4), dtype), ref.gaussian(rng, (9, 4), dtype)
    f = form_at(Field(tangent, None), x, g).array() / scale
    for _ in range(5):
        v = ref.gaussian(rng, (9, 4), dtype)
        v = x @ ref.skew(ref.H(x) @ v) + v - x @ (ref.H(x) @ v)
        of_f, of_v = ref.H(x) @ f, ref.H(x) @ v
        metric = beta * ref.inner(of_f, of_v) + ref.inner(f - x @ of_f, v - x @ of_v)
        assert metric == pytest.approx(ref.inner(g, v), rel=1e-11)
        other = 2 * beta * ref.inner(of_f, of_v) + ref.inner(f - x @ of_f, v - x @ of_v)
        assert abs(other - ref.inner(g, v)) > 1e-6  # the identity can fail


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_euclidean_tangent_is_pymanopts_gradient(rng, shape):
    from pymanopt.manifolds import Stiefel as Manifold

    x, g = ref.orthonormal(rng, shape), ref.gaussian(rng, shape)
    expected = Manifold(*shape).euclidean_to_riemannian_gradient(x, g)
    for tangent in (Euclidean(), PSI, BetaMetric(1.0)):
        np.testing.assert_allclose(
            form_at(Field(tangent, None), x, g).array(), expected, atol=1e-13
        )


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 7, 4)])
def test_tangents_that_are_the_same(rng, shape):
    """Euclidean is beta = 1, canonical is beta = 1/2; scales multiply; psi has scales too."""
    x, g = data(rng, shape, "float64")

    def of(tangent):
        return form_at(Field(tangent, None), x, g).array().copy()

    np.testing.assert_allclose(of(Euclidean()), of(BetaMetric(1.0)), atol=1e-14)
    np.testing.assert_allclose(of(Canonical(1.0)), of(BetaMetric(0.5)), atol=1e-13)
    np.testing.assert_allclose(of(Canonical(1.0)), 2.0 * of(Canonical()), atol=1e-14)
    np.testing.assert_allclose(of(Euclidean(False, 3.0)), 3.0 * of(PSI), atol=1e-14)
    assert np.abs(of(Euclidean()) - of(PSI)).max() > 1e-3


@tangents
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_one_step_identity_of_every_tangent(rng, shape, name):
    """The safe step is proved from it: Delta_+ depends on the field through Lambda^H Lambda only."""
    x, g = data(rng, shape, "float64")
    form = form_at(Field(TANGENTS[name][0], Penalty(0.7)), x, g)
    assert one_step_defect(x, form, 0.3, 0.7) < 1e-12


@pytest.mark.parametrize("scale", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_left_form_has_every_scale(rng, shape, dtype, scale):
    x, g = data(rng, shape, dtype)
    for normal in (Penalty(0.7), None):
        left = form_at(Field(Canonical(scale), normal), x, g)
        assert isinstance(left, LeftForm)
        right = RightForm(left.block, Canonical(scale), normal)
        right.update(x, g)
        out = left.kernels.empty(shape)
        np.testing.assert_allclose(
            left.moved(0.2, out), right.moved(0.2, np.empty_like(x)), atol=1e-13
        )
        np.testing.assert_allclose(left.array(), right.array(), atol=1e-13)
        np.testing.assert_allclose(left.distance, right.distance, rtol=1e-13)
        assert np.all(left.norm_bound() >= left.norm() * (1 - 1e-13))


def test_without_a_normal_term_the_gram_matrix_waits_until_it_is_read(rng, monkeypatch):
    """Square x: G X^H alone; the distance, where somebody asks, is right."""
    x, g = data(rng, (6, 6), "float64", 0.37)
    products, product = [], _blas.product
    monkeypatch.setattr(_blas, "product", lambda *a: products.append(1) or product(*a))
    form = form_at(Field(normal=None), x, g)
    assert len(products) == 1
    form.moved(0.1, np.empty((6, 6)))
    assert len(products) == 2
    assert form.distance == pytest.approx(0.37, rel=1e-13)
    assert form.distance == pytest.approx(0.37, rel=1e-13)
    assert len(products) == 3
    y = ref.in_tube(rng, (6, 6), 0.21)
    form.update(y, g)  # at another point it is another one
    assert form.distance == pytest.approx(0.21, rel=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 6), (3, 7, 4)])
@pytest.mark.parametrize("tangent", [Canonical(), Euclidean()])
def test_the_curve_of_the_distance(arrays, rng, shape, dtype, tangent):
    """||Delta - u T + u^2 Q|| is the distance of X - u t F, for any field, from either side."""
    x, g = data(rng, shape, dtype)
    form = form_at(Field(tangent, Penalty(0.7)), arrays.to(x), arrays.to(g))
    delta, mixed, square = (arrays.host(m) for m in form.curve(0.3))
    for u in (0.0, 0.5, 2.0):
        moved = tall(x) - u * 0.3 * arrays.host(form.array())
        after = ref.H(moved) @ moved - np.eye(moved.shape[-1])
        got = np.linalg.norm(delta - u * mixed + u * u * square, axis=(-2, -1))
        expected = np.linalg.norm(after, axis=(-2, -1))
        np.testing.assert_allclose(got, expected, rtol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, "1", None, True])
def test_metrics_are_positive(value):
    for make, name in (
        (lambda v: Canonical(metric_scale=v), "metric_scale"),
        (lambda v: Euclidean(metric_scale=v), "metric_scale"),
        (lambda v: BetaMetric(1.0, metric_scale=v), "metric_scale"),
        (lambda v: BetaMetric(beta=v), "beta"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be a positive finite number, got"):
            make(value)
    assert type(BetaMetric(np.float32(2.0)).beta) is float


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_near_tangent(rng, shape, dtype, scale):
    """G - X Y, tangent to second order; psi is to first. For square X the exact left form."""
    g = ref.gaussian(rng, shape, dtype)
    for d in (1e-2, 1e-4):
        x = ref.in_tube(rng, shape, d, dtype)
        run = Field(NearTangent(scale), None).start(None)
        point = run.point(Space(shape, Stiefel(), x))
        point.place([x])
        point.gradient = [g]
        run(point)
        f = point.forms[0].array()
        m = ref.H(x) @ g
        delta = ref.H(x) @ x - np.eye(shape[1])
        if shape[0] == shape[1]:
            k = g @ ref.H(x)
            expected = 0.5 * (k - ref.H(k)) @ x
        else:
            expected = g - x @ (ref.sym(m) - ref.sym(delta @ ref.sym(m)))
        np.testing.assert_allclose(f, scale * expected, atol=1e-12)
        leak = np.linalg.norm(ref.sym(ref.H(x) @ f))
        psi = g - x @ ref.sym(m)
        assert leak <= scale * d**2 * np.linalg.norm(ref.sym(m)) * (1 + 1e-6) + 1e-13
        assert np.linalg.norm(ref.sym(ref.H(x) @ psi)) > 0.05 * d * np.linalg.norm(ref.sym(m))
