"""Finite sums and streams: full passes, what the user's functions get and give, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
import reference_sums as sums
from test_trajectories import assert_close, run

import landingopt as lo

MiniBatch, Saga, Svrg = lo.estimators.MiniBatch, lo.estimators.Saga, lo.estimators.Svrg
PRESETS = [lo.landing_sgd, lo.landing_saga, lo.landing_svrg]
SHAPE = (7, 3)


def a_sum(rng, n_terms=20, shape=SHAPE, easy=True, **options):
    fun, grad = sums.quadratics(rng, n_terms, shape, easy=easy)
    return lo.FiniteSum(fun, grad, n_terms=n_terms, shape=shape, **options)


# -- the whole sum ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("chunk", [1, 4, 10, 20, 1000])
def test_full_passes_in_chunks(rng, chunk, dtype):
    """Chunks of any size, the last one smaller: the same f and gradient."""
    fun, grad = sums.quadratics(rng, 20, SHAPE, dtype)
    everything = np.arange(20)
    x = ref.in_tube(rng, SHAPE, 0.3, dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    chunked = lo.FiniteSum(fun, grad, n_terms=20, shape=SHAPE, chunk_terms=chunk)
    assert chunked.fun(x) == pytest.approx(fun(x, everything), rel=tolerance)
    g = chunked.grad(x)
    assert g.dtype == np.dtype(dtype)
    np.testing.assert_allclose(g, grad(x, everything), rtol=0, atol=tolerance)
    phi, dphi, data = sums.linear_models(rng, 20, *SHAPE, dtype)
    fun, grad = sums.of_terms(phi, dphi, data)
    linear = lo.LinearModelSum(phi, dphi, data, p=3, chunk_terms=chunk)
    value, g = linear.value_and_gradient(x)
    assert isinstance(value, float)
    assert value == pytest.approx(fun(x, everything), rel=tolerance)
    assert linear.fun(x) == pytest.approx(value, rel=tolerance)
    assert g.dtype == np.dtype(dtype)
    np.testing.assert_allclose(g, grad(x, everything), rtol=0, atol=tolerance)
    np.testing.assert_allclose(linear.grad(x), g, rtol=0, atol=tolerance)
    some = np.array([3, 1, 3])
    assert linear.fun_terms(x, some) == pytest.approx(fun(x, some), rel=tolerance)
    np.testing.assert_allclose(linear.grad_terms(x, some), grad(x, some), atol=tolerance)


def test_gradients_are_those_of_the_values(rng):
    """Complex too: the gradient for Re tr(A^H B) is a_i phi_i' with conjugated rows."""
    for dtype in ("float64", "complex128"):
        problem = lo.LinearModelSum(*sums.linear_models(rng, 20, *SHAPE, dtype), p=3)
        assert lo.check_gradient(problem, rng=0).passed
        fun, grad = sums.quadratics(rng, 20, SHAPE, dtype)
        like = np.empty(0, dtype)
        problem = lo.FiniteSum(fun, grad, n_terms=20, shape=SHAPE, like=like)
        assert lo.check_gradient(problem, rng=0).passed


@pytest.mark.parametrize("chunk", [3, 8])
@pytest.mark.parametrize("method", [lo.landing(0.05), *(preset(0.05) for preset in PRESETS)])
def test_chunks_bound_the_slices_of_full_passes(rng, chunk, method):
    """Anchors, first passes of structured tables, and what is measured."""
    phi, dphi, data = sums.linear_models(rng, 20, *SHAPE)
    longest = {"slice": 0, "array": 0}

    def watched(function):
        def called(u, terms):
            kind = "slice" if isinstance(terms, slice) else "array"
            longest[kind] = max(longest[kind], len(sums.indices(terms, 20)))
            return function(u, terms)

        return called

    linear = lo.LinearModelSum(watched(phi), watched(dphi), data, p=3, chunk_terms=chunk)
    lo.minimize(linear, method=method, rng=0, stop=lo.MaxIterations(20))
    assert longest["slice"] == chunk
    fun, grad = sums.of_terms(phi, dphi, data)
    longest.update(slice=0, array=0)
    plain = lo.FiniteSum(watched(fun), watched(grad), n_terms=20, shape=SHAPE, chunk_terms=chunk)
    if method.name.startswith("landing_saga"):
        method = lo.landing_saga(0.05, batch_size=chunk)  # its full table keeps whole batches
    lo.minimize(plain, method=method, rng=0, stop=lo.MaxIterations(20))
    assert longest["slice"] == chunk


@pytest.mark.parametrize("preset", PRESETS)
def test_chunks_bound_the_slices_of_the_curvature(rng, preset):
    """A short sum is measured as a whole, within the memory that was granted."""
    longest = []
    fun, grad = sums.quadratics(rng, 20, SHAPE, easy=True)

    def watched(x, terms):
        longest.append(len(sums.indices(terms, 20)))
        return grad(x, terms)

    problem = lo.FiniteSum(fun, watched, n_terms=20, shape=SHAPE, chunk_terms=5)
    method = preset(batch_size=4)
    result = lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(0))
    assert max(longest) <= 5
    whole = lo.FiniteSum(fun, grad, n_terms=20, shape=SHAPE)
    expected = lo.minimize(whole, method=method, rng=0, stop=lo.MaxIterations(0))
    assert result.method.lam == pytest.approx(expected.method.lam, rel=1e-6)


@pytest.mark.parametrize("method", [lo.landing(), lo.landing_lbfgs(), lo.landing_cg()])
def test_methods_of_the_full_gradient_solve_sums(rng, method):
    """Every sum is a problem like any other; 10 000 iterations and Every(1) by default."""
    phi, dphi, data = sums.linear_models(rng, 40, *SHAPE)
    for problem in (
        a_sum(rng, chunk_terms=6),
        lo.LinearModelSum(phi, dphi, data, p=3),
        lo.FiniteSum(
            *sums.product(rng, 20, easy=True),
            n_terms=20,
            shape={"W": (7, 4), "b": (3,)},
            constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
        ),
        a_sum(rng, shape=(2, 5, 3)),
    ):
        result = lo.minimize(problem, method=method, tol=1e-8, rng=0)
        assert result.success
        assert len(result.trace) == result.nit + 1
    # The value comes with the gradient of linear models: one pass for both.
    result = lo.minimize(lo.LinearModelSum(phi, dphi, data, p=3), method=method, rng=0)
    assert result.nfev == result.njev


def test_a_sum_without_values(rng):
    """fun=None: NaN for values; what reads f says so."""
    _, grad = sums.quadratics(rng, 20, SHAPE)
    _, dphi, data = sums.linear_models(rng, 20, *SHAPE)
    for problem in (
        lo.FiniteSum(None, grad, n_terms=20, shape=SHAPE),
        lo.LinearModelSum(None, dphi, data, p=3),
    ):
        result = lo.minimize(problem, method=lo.landing_svrg(0.05), rng=0, stop=lo.MaxIterations(9))
        assert np.isnan(result.fun) and np.isfinite(result.gradient_norm)
        with pytest.raises(TypeError, match="has no fun"):
            lo.minimize(problem)


# -- data that is not in memory ---------------------------------------------------------------


class Rows:
    """What h5py and zarr have: a length and slices. It counts what is read."""

    def __init__(self, data):
        self.data, self.read = data, 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.read += key.stop - key.start
        return self.data[key]


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_rows_are_read_where_they_are_drawn(rng, tmp_path, dtype):
    """A memmap and an object with slices give the trajectory of the array."""
    phi, dphi, data = sums.linear_models(rng, 20, *SHAPE, dtype)
    np.save(tmp_path / "rows.npy", data)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    x0 = ref.in_tube(rng, SHAPE, 0.3, dtype)
    draws = [rng.integers(20, size=4).tolist() for _ in range(10)] + [slice(3, 9), [5, 5, 6]]
    sampler = lo.samplers.Replay(draws)
    for base in (MiniBatch(4, sampler), Saga(4, sampler), Svrg(4, sampler)):
        method = lo.landing(0.1, base=base)
        expected, _ = run(lo.LinearModelSum(phi, dphi, data, p=3), x0, method, 11)
        for rows in (mapped, Rows(data)):
            problem = lo.LinearModelSum(phi, dphi, rows, p=3)
            assert problem.shape == SHAPE and problem.n_terms == 20
            assert_close(run(problem, x0, method, 11)[0], expected, 0.0)


def test_no_more_is_read_than_is_drawn(rng):
    """Neighbours in one slice, a term that is named twice once."""
    phi, dphi, data = sums.linear_models(rng, 20, *SHAPE)
    rows = Rows(data)
    problem = lo.LinearModelSum(phi, dphi, rows, p=3)
    for terms, size in (([7, 3, 4, 7, 5], 4), ([0], 1), ([19, 0], 2), (slice(2, 6), 4)):
        rows.read = 0
        drawn = terms if isinstance(terms, slice) else np.array(terms)
        np.testing.assert_array_equal(problem.rows(drawn), data[terms])
        assert rows.read == size


# -- nothing of the user's is changed or held -------------------------------------------------

NAMED = {
    "sgd": MiniBatch(4),
    "sgd of unequal slices": MiniBatch(3, lo.samplers.Reshuffled(contiguous=True)),
    "saga": Saga(4),
    "saga of unequal slices": Saga(3, lo.samplers.Reshuffled(contiguous=True)),
    "svrg": Svrg(4),
    "loopless": Svrg(4, loopless=True),
    "momentum": lo.estimators.Momentum(0.5, base=MiniBatch(4)),
    "nesterov": lo.estimators.Momentum(0.5, nesterov=True, base=Saga(4)),
    "adam": lo.estimators.Adam(base=MiniBatch(4)),
    "tangent": lo.estimators.Momentum(0.5, base=lo.estimators.Tangent(MiniBatch(4))),
}


@pytest.mark.parametrize("shape", [(6, 6), (7, 3), (3, 7), (2, 5, 3)])
@pytest.mark.parametrize("estimator", NAMED.values(), ids=NAMED)
def test_a_gradient_in_shared_memory(rng, estimator, shape):
    """The same buffer at each call, overwritten by the next: the same iterates."""
    fun, grad = sums.quadratics(rng, 20, shape, easy=True)
    x0 = ref.in_tube(rng, shape, 0.3)
    buffer = np.empty(shape)

    def shared(x, terms):
        buffer[...] = grad(x, terms)
        return buffer

    def frozen(x, terms):
        g = np.asfortranarray(grad(x, terms))
        g.flags.writeable = False
        return g

    method = lo.landing(0.05, base=estimator)
    ways = [
        run(lo.FiniteSum(fun, g, n_terms=20, shape=shape), x0, method, 25, rng=3)[0]
        for g in (grad, shared, frozen)
    ]
    assert_close(ways[1], ways[0], 0.0)
    assert_close(ways[2], ways[0], 1e-13)
    default = lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Safeguarded(lo.steps.FromCurvature(0.3))),
        estimator=estimator,
    )
    ends = [
        lo.minimize(
            lo.FiniteSum(fun, g, n_terms=20, shape=shape),
            x0,
            default,
            rng=3,
            stop=lo.MaxIterations(5),
        ).x
        for g in (grad, shared)
    ]
    np.testing.assert_array_equal(ends[1], ends[0])


@pytest.mark.parametrize("estimator", [MiniBatch(4), Saga(4), Svrg(4), Svrg(4, max_bytes=0)])
def test_slopes_in_shared_memory(rng, estimator):
    phi, dphi, data = sums.linear_models(rng, 20, *SHAPE)
    buffer = np.empty((20, 3))

    def shared(u, terms):
        out = buffer[: len(u)]
        out[...] = dphi(u, terms)
        return out

    x0 = ref.in_tube(rng, SHAPE, 0.3)
    method = lo.landing(0.05, base=estimator)
    data.flags.writeable = False
    ways = [
        run(lo.LinearModelSum(phi, d, data, p=3), x0, method, 25, rng=3)[0] for d in (dphi, shared)
    ]
    assert_close(*ways, 0.0)


@pytest.mark.parametrize("estimator", NAMED.values(), ids=NAMED)
def test_x_is_read_only_and_inputs_stay(rng, estimator):
    fun, grad = sums.quadratics(rng, 20, SHAPE, easy=True)
    x0 = ref.in_tube(rng, SHAPE, 0.3)
    before = x0.copy()
    seen = []

    def looking(function):
        def called(x, terms):
            seen.append(x.flags.writeable or np.shares_memory(x, x0))
            return function(x, terms)

        return called

    problem = lo.FiniteSum(looking(fun), looking(grad), n_terms=20, shape=SHAPE)
    for method in (lo.landing(0.05, base=estimator), lo.landing_sgd(), lo.landing_saga()):
        lo.minimize(problem, x0, method, rng=0, stop=lo.MaxEpochs(6))
    assert seen and not any(seen)
    np.testing.assert_array_equal(x0, before)


@pytest.mark.parametrize("estimator", NAMED.values(), ids=NAMED)
def test_a_gradient_that_is_x_itself(rng, estimator):
    """G = X, read-only: f = ||X||^2 / 2, constant on the manifold."""
    problem = lo.FiniteSum(
        lambda x, t: 0.5 * float(np.sum(x**2)), lambda x, t: x, n_terms=20, shape=SHAPE
    )
    x0 = ref.in_tube(rng, SHAPE, 0.3)
    result = lo.minimize(
        problem, x0, lo.landing(0.1, base=estimator), rng=0, stop=lo.MaxIterations(400)
    )
    assert result.distance < 1e-6
    np.testing.assert_allclose(result.feasible_x, ref.polar(x0), atol=0.05)


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sum_in_place_of_a_mean(rng, preset):
    fun, grad = sums.quadratics(rng, 20, SHAPE)

    def summed(x, terms):
        return len(sums.indices(terms, 20)) * grad(x, terms)

    problem = lo.FiniteSum(fun, summed, n_terms=20, shape=SHAPE)
    with pytest.raises(ValueError, match=r"not the mean of theirs.*looks like their sum: divide"):
        lo.minimize(problem, method=preset(0.1))
    over_all = lo.FiniteSum(
        fun, lambda x, t: summed(x, t) / 20, n_terms=20, shape=SHAPE
    )  # divided by N in place of b
    with pytest.raises(ValueError, match="not the mean of theirs"):
        lo.minimize(over_all, method=preset(0.1))
    ignoring = lo.FiniteSum(fun, lambda x, t: grad(x, slice(None)), n_terms=20, shape=SHAPE)
    lo.minimize(ignoring, method=preset(0.1), rng=0, stop=lo.MaxIterations(3))  # no noise is fine
    only = lo.FiniteSum(fun, grad, n_terms=1, shape=SHAPE)
    assert lo.minimize(only, method=preset(0.1), rng=0, stop=lo.MaxIterations(3)).nit == 3


def test_the_look_at_a_sum_bears_rounding(rng):
    """float32, large terms that cancel in the mean, and tiny gradients pass."""
    for scale in (1e-12, 1.0, 1e12):
        a = scale * rng.standard_normal((20, 1, 1)).astype(np.float32)

        def grad(x, terms, a=a):
            return np.mean(a[terms] * x, axis=0, dtype=np.float32)

        problem = lo.FiniteSum(None, grad, n_terms=20, shape=SHAPE, like=np.empty(0, "float32"))
        method = lo.landing_sgd(1e-3 / scale)
        lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(2))


@pytest.mark.parametrize("preset", PRESETS)
def test_more_terms_than_the_data_has(rng, preset):
    fun, grad = sums.quadratics(rng, 20, SHAPE)
    problem = lo.FiniteSum(fun, grad, n_terms=30, shape=SHAPE)
    with pytest.raises(ValueError, match=r"n_terms = 30, but the gradient of the terms .*29"):
        lo.minimize(problem, method=preset(0.1))


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, "20", None])
def test_counts_of_terms(rng, bad):
    fun, grad = sums.quadratics(rng, 20, SHAPE)
    with pytest.raises(ValueError, match="n_terms must be a whole number of at least 1"):
        lo.FiniteSum(fun, grad, n_terms=bad, shape=SHAPE)
    if bad is not None:
        with pytest.raises(ValueError, match="chunk_terms must be a whole number"):
            lo.FiniteSum(fun, grad, n_terms=20, shape=SHAPE, chunk_terms=bad)
        with pytest.raises(ValueError, match="p must be a whole number"):
            lo.LinearModelSum(None, fun, np.ones((4, 3)), p=bad)


def test_functions_that_are_none(rng):
    fun, grad = sums.quadratics(rng, 20, SHAPE)
    with pytest.raises(TypeError, match="needs grad"):
        lo.FiniteSum(fun, None, n_terms=20, shape=SHAPE)
    with pytest.raises(TypeError, match="grad must be a function"):
        lo.FiniteSum(fun, 3, n_terms=20, shape=SHAPE)
    with pytest.raises(TypeError, match="needs dphi"):
        lo.LinearModelSum(fun, None, np.ones((4, 3)))
    with pytest.raises(TypeError, match="a stream needs grad"):
        lo.Stream(fun, None, batches=[], shape=SHAPE)
    with pytest.raises(TypeError, match="batches must be an iterable"):
        lo.Stream(fun, grad, batches=3, shape=SHAPE)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([[1.0, 2.0]], TypeError, "data must be an array, got list"),
        (np.ones((3, 2), int), TypeError, "data"),
        (np.ones(3), ValueError, "a matrix"),
        (np.ones((3, 2, 2)), ValueError, "a matrix"),
        (np.ones((0, 2)), ValueError, "a matrix"),
        (Rows(np.ones((0, 2))), ValueError, "data has no rows"),
        (3.0, TypeError, "data must be an array, a memmap"),
        (Rows(np.ones((3, 2), int)), TypeError, "data"),
    ],
)
def test_data_that_is_no_matrix(data, error, words):
    with pytest.raises(error, match=words):
        lo.LinearModelSum(None, lambda u, t: u, data)


WRONG_SLOPES = {
    "a mean": (lambda u: u.mean(axis=0), r"shape \(3,\)"),
    "a column": (lambda u: u[:, :1], r"shape \(\d+, 1\)"),
    "wider": (lambda u: u.astype(np.complex128), "dtype complex128"),
    "narrower": (lambda u: u.astype(np.float32), "dtype float32"),
    "a number": (lambda u: 1.0, "got float"),
    "a list": (lambda u: u.tolist(), "got list"),
}


@pytest.mark.parametrize("wrong", WRONG_SLOPES)
@pytest.mark.parametrize("method", [lo.landing(0.1), *(preset(0.1) for preset in PRESETS)])
def test_slopes_of_the_wrong_kind(rng, method, wrong):
    dphi, words = WRONG_SLOPES[wrong]
    problem = lo.LinearModelSum(None, lambda u, t: dphi(u), rng.standard_normal((20, 7)), p=3)
    with pytest.raises(TypeError, match=rf"dphi must return an array of shape .*{words}"):
        lo.minimize(problem, method=method, rng=0)


@pytest.mark.parametrize(
    "phi", [lambda u: np.mean(u), lambda u: u, lambda u: u[:, :1], lambda u: 1.0]
)
@pytest.mark.parametrize("method", [lo.landing(), *(preset(0.1) for preset in PRESETS)])
def test_values_of_the_wrong_kind(rng, method, phi):
    problem = lo.LinearModelSum(
        lambda u, t: phi(u), lambda u, t: u, rng.standard_normal((20, 7)), p=3
    )
    with pytest.raises(ValueError, match="phi must return one value for each term"):
        lo.minimize(problem, method=method, rng=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_of_the_wrong_kind(rng, preset):
    for wrong, error, words in (
        (lambda g: g.T.copy(), ValueError, "the gradient has shape"),
        (lambda g: g.astype(np.complex128), TypeError, "nothing is cast silently"),
        (lambda g: g.tolist(), TypeError, "must be an array"),
        (lambda g: {"W": g}, TypeError, "must be an array"),
    ):
        _, grad = sums.quadratics(rng, 20, SHAPE)
        problem = lo.FiniteSum(
            None, lambda x, t, w=wrong, g=grad: w(g(x, t)), n_terms=20, shape=SHAPE
        )
        with pytest.raises(error, match=words):
            lo.minimize(problem, method=preset(0.1), rng=0)


def test_a_start_of_another_dtype(rng):
    problem = lo.LinearModelSum(None, lambda u, t: u, rng.standard_normal((20, 7)), p=3)
    with pytest.raises(TypeError, match="convert one of them"):
        lo.minimize(problem, ref.orthonormal(rng, SHAPE, np.float32), lo.landing_sgd(0.1))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite(rng, preset, bad):
    """A minibatch that breaks on the way ends the run at the next row, with what was reached."""
    fun, grad = sums.quadratics(rng, 20, SHAPE, easy=True)
    calls = []

    def breaking(x, terms):
        calls.append(1)
        g = grad(x, terms)
        if len(calls) > 60:
            g[1, 2] = bad
        return g

    problem = lo.FiniteSum(fun, breaking, n_terms=20, shape=SHAPE)
    with pytest.raises(lo.SolveError) as caught:
        lo.minimize(problem, method=preset(0.05, batch_size=4), rng=0)
    assert caught.value.result.status.name == "NONFINITE"


# -- streams ----------------------------------------------------------------------------------


def batches_of(rng, number=12, size=5):
    return [rng.standard_normal((size, 6)) * np.linspace(2, 0.5, 6) for _ in range(number)]


def fun_of(x, a):
    return -0.5 * float(np.mean(np.sum((a @ x) ** 2, axis=1)))


def grad_of(x, a):
    return -a.T @ (a @ x) / len(a)


def stream(batches, grad=grad_of, **options):
    return lo.Stream(fun_of, grad, batches=batches, shape=(6, 3), **options)


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_a_stream_is_ten_lines(rng, beta):
    """k batches, k steps, and the end; momentum around it."""
    batches = batches_of(rng)
    x0 = ref.in_tube(rng, (6, 3), 0.3)
    xs = []
    record = lo.Every(1, metrics={"corner": lambda x: x[0, 0]})
    for given in (batches, tuple(batches), lambda: iter(batches), lambda: batches):
        for method in (
            lo.landing(0.05, base=lo.estimators.Momentum(beta, base=MiniBatch())),
            *([] if beta else [lo.landing_sgd(0.05, tangent=lo.fields.Canonical())]),
        ):
            problem = stream(given)
            for _ in range(2):  # a list, and a function that opens it, are used again
                xs.clear()
                result = lo.minimize(
                    problem, x0, method, record=record, callback=lambda row: xs.append(row.x.copy())
                )
                expected = sums.descent(
                    sums.sgd(grad_of, batches), x0, 0.05, beta=beta, steps=len(batches)
                )
                assert result.status.name == "STREAM_ENDED" and not result.success
                assert result.nit == len(batches) == result.njev
                assert_close(xs, expected, 1e-13)
                np.testing.assert_array_equal(result.trace["corner"], [x[0, 0] for x in xs])
                np.testing.assert_array_equal(result.x, xs[-1])
                for name in ("fun", "feasible_fun", "gradient_norm"):
                    assert np.all(np.isnan(result.trace[name]))
                    assert np.isnan(getattr(result, name))
                assert np.all(np.isfinite(result.trace["distance"]))
                assert "The stream of batches has ended." in result.message


def test_the_default_record_of_a_stream(rng):
    """The first and the last iterate."""
    result = lo.minimize(stream(batches_of(rng)), method=lo.landing_sgd(0.05), rng=0)
    assert result.trace["iteration"].tolist() == [0, 12]
    assert result.trace["njev"].tolist() == [0, 12]


def test_an_iterator_is_used_up(rng):
    problem = stream(iter(batches_of(rng)))
    method = lo.landing_sgd(0.05)
    assert lo.minimize(problem, method=method, rng=0).nit == 12
    with pytest.raises(ValueError, match=r"the stream gave no batch.*pass a list of batches"):
        lo.minimize(problem, method=method, rng=0)
    with pytest.raises(ValueError, match="the stream gave no batch"):
        lo.minimize(stream([]), method=method, rng=0)


def test_a_stream_ends_by_rules_too(rng):
    method = lo.landing_sgd(0.05)
    result = lo.minimize(stream(batches_of(rng)), method=method, stop=lo.MaxIterations(5), rng=0)
    assert (result.nit, result.status.name) == (5, "MAX_ITERATIONS")

    def endless():
        while True:
            yield from batches_of(rng)

    result = lo.minimize(stream(endless), method=method, stop=lo.Timeout(0.05), rng=0)
    assert result.status.name == "TIMEOUT" and result.nit > 0
    stopped = lo.minimize(
        stream(endless),
        method=method,
        rng=0,
        record=lo.Every(1),
        callback=lambda row: row.iteration == 7,
    )
    assert (stopped.nit, stopped.status.name) == (7, "CALLBACK")


def test_what_a_stream_cannot(rng):
    problem = stream(batches_of(rng))
    for method in (lo.landing_saga(0.1), lo.landing_svrg(0.1), lo.landing_saga()):
        with pytest.raises(TypeError, match=r"terms that it can see again.*lo.landing_sgd\(\)"):
            lo.minimize(problem, method=method)
    with pytest.raises(TypeError, match=r"no?ne is spent on measuring.*landing_sgd\(step"):
        lo.minimize(problem, method=lo.landing_sgd())
    with pytest.raises(ValueError, match=r"tol = 1e-06 was given for a stream"):
        lo.minimize(problem, method=lo.landing_sgd(0.1), tol=1e-6)
    with pytest.raises(TypeError, match="full gradient of a stream is not known"):
        lo.minimize(problem, method=lo.landing(0.1))
    with pytest.raises(TypeError, match="full gradient of a stream is not known"):
        problem.grad(np.zeros((6, 3)))
    for method in (None, lo.landing_lbfgs()):
        with pytest.raises(TypeError, match="stream") as caught:
            lo.minimize(problem, method=method)
        assert "lo.Objective" not in str(caught.value)


def test_a_schedule_in_epochs_needs_an_end(rng):
    """A stream has no epochs: the step would stay where it starts."""
    for rule in (lo.steps.Cosine(0.1, 5), lo.steps.StepDecay(0.1, (2,))):
        with pytest.raises((TypeError, ValueError), match="iteration"):
            lo.minimize(stream(batches_of(rng)), method=lo.landing_sgd(rule), rng=0)
    timed = lo.steps.StepDecay(0.01, (6,), by="iteration")
    result = lo.minimize(
        stream(batches_of(rng)), method=lo.landing_sgd(timed), rng=0, record=lo.Every(1)
    )
    np.testing.assert_allclose(result.trace["step"][1:], [0.01] * 6 + [0.001] * 6)


def test_a_stream_checks_its_gradients(rng):
    for wrong, error, words in (
        (lambda g: g[:, :2], ValueError, "the gradient has shape"),
        (lambda g: g.astype(np.float32), TypeError, "nothing is cast silently"),
    ):
        problem = stream(batches_of(rng), lambda x, a, w=wrong: w(grad_of(x, a)))
        with pytest.raises(error, match=words):
            lo.minimize(problem, method=lo.landing_sgd(0.1), rng=0)


def test_a_stream_into_shared_memory(rng):
    """Batches and gradients that reuse their memory."""
    batches = batches_of(rng)
    x0 = ref.in_tube(rng, (6, 3), 0.3)
    buffer, rows = np.empty((6, 3)), np.empty((5, 6))

    def refilled():
        for batch in batches:
            rows[...] = batch
            yield rows

    def shared(x, a):
        assert not x.flags.writeable
        buffer[...] = grad_of(x, a)
        return buffer

    method = lo.landing_sgd(0.05, momentum=0.5)
    expected = lo.minimize(stream(batches), x0, method).x
    np.testing.assert_array_equal(lo.minimize(stream(refilled, shared), x0, method).x, expected)


def test_a_stream_of_a_product_and_in_every_library(arrays, rng):
    shape = {"W": (6, 3), "b": (3,)}
    constraint = {"W": lo.Stiefel(), "b": lo.Euclidean()}
    batches = batches_of(rng)
    x0 = {"W": ref.in_tube(rng, (6, 3), 0.3), "b": ref.gaussian(rng, (3,))}

    def grad(x, a):
        return {"W": grad_of(x["W"], a), "b": x["b"] - a[0, :3]}

    def there(x, a):
        return arrays.to(grad(arrays.host(x), a))

    method = lo.landing_sgd(0.05, momentum=0.5)
    numpy = lo.Stream(None, grad, batches=batches, shape=shape, constraint=constraint)
    other = lo.Stream(None, there, batches=batches, shape=shape, constraint=constraint)
    expected = lo.minimize(numpy, x0, method)
    result = lo.minimize(other, arrays.to(x0), method)
    assert result.status == expected.status and result.nit == 12
    for name in shape:
        np.testing.assert_allclose(arrays.host(result.x)[name], expected.x[name], atol=1e-13)
