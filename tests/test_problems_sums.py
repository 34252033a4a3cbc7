"""Problems that are finite sums: terms against the whole, data that is read as drawn, recovery."""

from __future__ import annotations

import builtins
import pickle

import numpy as np
import pytest
from reference import gaussian

import landingopt as lo
from landingopt import _xp
from landingopt.problems import (
    ICA,
    PCA,
    OrthogonalClassifier,
    SampledPCA,
    amari_distance,
    online_pca,
    stream_pca,
    whiten,
)

N, ROWS, COLUMNS = 61, 6, 3
KINDS = ["ica", "pca", "complex-pca", "classifier"]


def skewed(rng, shape, dtype="float64"):
    """Data that is symmetric under nothing."""
    values = rng.exponential(size=shape) - 0.3
    if np.dtype(dtype).kind == "c":
        values = values + 1j * (rng.exponential(size=shape) - 0.6)
    return values.astype(dtype)


def problem_of(kind, rng, dtype=None, to=lambda values: values):
    """A small problem; ``to`` makes its arrays."""
    dtype = dtype or ("complex128" if kind == "complex-pca" else "float64")
    values = skewed(rng, (N, ROWS), dtype)
    if kind.endswith("pca"):  # a gap behind the leading components
        values *= np.array([3.0, 2.5, 2.0, 0.8, 0.6, 0.3], dtype=dtype)
    data = to(values)
    if kind == "ica":
        return ICA(data, p=COLUMNS)
    if kind == "classifier":
        return OrthogonalClassifier(data, rng.integers(COLUMNS, size=N), n_classes=COLUMNS)
    return SampledPCA(data, COLUMNS, chunk_terms=17)


def naive_terms(kind, problem, x):
    """The value of each term, one by one, in double precision."""
    data = _xp.to_host(problem.data)
    for i, row in enumerate(data):
        u = row @ x
        if kind == "ica":
            yield np.sum(np.logaddexp(u, -u) - np.log(2))
        elif kind == "classifier":
            z = problem.scale * u
            yield np.log(np.sum(np.exp(z))) - z[int(_xp.to_host(problem.labels)[i])]
        else:
            yield -0.5 * np.sum(np.abs(u) ** 2)


def blocks(rng):
    """A partition of the terms into unequal blocks: slices and arrays of indices."""
    order = rng.permutation(np.arange(20, N))
    return [slice(0, 1), slice(1, 20), order[:7], order[7:]]


def size_of(terms):
    return terms.stop - terms.start if isinstance(terms, slice) else len(terms)


class Rows:
    """Rows of a file: length and slices, nothing else; what was read is counted."""

    def __init__(self, values):
        self.values, self.read, self.largest = values, 0, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, part):
        assert type(part) is slice and part.step in (None, 1)
        rows = self.values[part]
        self.read += len(rows)
        self.largest = max(self.largest, len(rows))
        return np.array(rows)


# -- terms and the whole ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestTerms:
    def test_values_are_the_formula(self, kind, rng):
        problem = problem_of(kind, rng)
        x = gaussian(rng, problem.shape, problem.like.dtype)
        each = np.array(list(naive_terms(kind, problem, x)))
        assert problem.n_terms == N and problem.shape == (ROWS, COLUMNS)
        assert type(problem.fun(x)) is float
        np.testing.assert_allclose(problem.fun(x), each.mean(), rtol=1e-13)
        for terms in blocks(rng):
            np.testing.assert_allclose(problem.fun_terms(x, terms), each[terms].mean(), rtol=1e-12)

    def test_gradients_pass_the_checker(self, kind, rng):
        problem = problem_of(kind, rng)
        for scale in (0.3, 1.0, 2.0):
            x = scale * gaussian(rng, problem.shape, problem.like.dtype)
            lo.check_gradient(problem, x, raise_on_failure=True)
            for terms in blocks(rng):
                part = lo.Objective(
                    lambda x, t=terms: problem.fun_terms(x, t),
                    lambda x, t=terms: problem.grad_terms(x, t),
                    shape=problem.shape,
                )
                lo.check_gradient(part, x, raise_on_failure=True)

    def test_the_checker_rejects_a_wrong_gradient(self, kind, rng):
        problem = problem_of(kind, rng)
        x = gaussian(rng, problem.shape, problem.like.dtype)
        some = slice(3, 11)
        for wrong in (
            lambda x: 1.001 * problem.grad_terms(x, some),
            lambda x: problem.grad_terms(x, slice(3, 12)),
            lambda x: problem.grad_terms(x, some) * np.array([1.0, 1.0, 0.99]),
        ):
            part = lo.Objective(lambda x: problem.fun_terms(x, some), wrong, shape=problem.shape)
            assert not lo.check_gradient(part, x)

    def test_blocks_make_the_whole(self, kind, rng):
        problem = problem_of(kind, rng)
        x = gaussian(rng, problem.shape, problem.like.dtype)
        parts = blocks(rng)
        shares = [size_of(terms) / N for terms in parts]
        assert sum(shares) == pytest.approx(1.0)
        value = sum(s * problem.fun_terms(x, t) for s, t in zip(shares, parts))
        gradient = sum(s * problem.grad_terms(x, t) for s, t in zip(shares, parts))
        both = problem.value_and_gradient(x)
        for whole in (problem.fun(x), both[0]):
            np.testing.assert_allclose(value, whole, rtol=1e-13)
        for whole in (problem.grad(x), both[1]):
            np.testing.assert_allclose(gradient, whole, rtol=1e-12, atol=1e-14)
        unweighted = sum(problem.grad_terms(x, t) for t in parts) / len(parts)
        assert np.abs(unweighted - problem.grad(x)).max() > 1e-3  # blocks are unequal

    def test_a_term_named_twice_counts_twice(self, kind, rng):
        problem = problem_of(kind, rng)
        x = gaussian(rng, problem.shape, problem.like.dtype)
        one, two = (problem.grad_terms(x, slice(i, i + 1)) for i in (5, 9))
        np.testing.assert_allclose(
            problem.grad_terms(x, np.array([5, 9, 5])), (2 * one + two) / 3, rtol=1e-12, atol=1e-15
        )

    def test_rows_and_slopes_make_the_gradient(self, kind, rng):
        """What the structured tables of SAGA and SVRG use."""
        problem = problem_of(kind, rng)
        x = gaussian(rng, problem.shape, problem.like.dtype)
        for terms in blocks(rng):
            rows = problem.rows(terms)
            slopes = problem.slopes(rows @ x, terms)
            product = rows.conj().T @ slopes / size_of(terms)
            np.testing.assert_allclose(
                product, problem.grad_terms(x, terms), rtol=1e-13, atol=1e-15
            )

    def test_precision_is_kept(self, kind, rng):
        narrow = "complex64" if kind == "complex-pca" else "float32"
        seed = int(rng.integers(1000))
        problem = problem_of(kind, np.random.default_rng(seed), narrow)
        wide = problem_of(kind, np.random.default_rng(seed))
        x = gaussian(rng, problem.shape, narrow)
        for terms in blocks(rng):
            gradient = problem.grad_terms(x, terms)
            assert gradient.dtype == np.dtype(narrow)
            assert problem.rows(terms).dtype == np.dtype(narrow)
            np.testing.assert_allclose(
                gradient, wide.grad_terms(x.astype(wide.like.dtype), terms), rtol=1e-4, atol=1e-4
            )
        assert problem.grad(x).dtype == np.dtype(narrow)
        result = lo.minimize(problem, method=lo.landing_svrg(), stop=lo.MaxEpochs(3), rng=0)
        assert result.x.dtype == np.dtype(narrow)

    @pytest.mark.parametrize("name", ["landing_sgd", "landing_saga", "landing_svrg"])
    def test_stochastic_methods_run(self, kind, name, rng):
        problem = problem_of(kind, rng)
        result = lo.minimize(
            problem,
            method=getattr(lo, name)(batch_size=8),
            stop=lo.MaxEpochs(400) | lo.GradientNorm(atol=1e-7),
            rng=0,
        )
        assert result.distance < (1e-6 if name != "landing_sgd" else 0.5)
        if name != "landing_sgd":
            assert result.gradient_norm < 1e-7

    def test_is_pickled(self, kind, rng):
        problem = problem_of(kind, rng)
        again = pickle.loads(pickle.dumps(problem))
        x = gaussian(rng, problem.shape, problem.like.dtype)
        np.testing.assert_array_equal(again.grad(x), problem.grad(x))
        terms = np.array([4, 1, 30])
        np.testing.assert_array_equal(again.grad_terms(x, terms), problem.grad_terms(x, terms))

    def test_array_libraries(self, kind, arrays, rng):
        dtype = "complex128" if kind == "complex-pca" else "float64"
        seed = int(rng.integers(1000))
        expected = problem_of(kind, np.random.default_rng(seed))
        problem = problem_of(kind, np.random.default_rng(seed), to=arrays.to)
        x = gaussian(rng, problem.shape, dtype)
        ours = arrays.to(x)
        for terms in blocks(rng):
            np.testing.assert_allclose(
                arrays.host(problem.grad_terms(ours, terms)),
                expected.grad_terms(x, terms),
                rtol=1e-12,
                atol=1e-14,
            )
            assert float(problem.fun_terms(ours, terms)) == pytest.approx(
                expected.fun_terms(x, terms), rel=1e-12
            )
        np.testing.assert_allclose(
            arrays.host(problem.grad(ours)), expected.grad(x), rtol=1e-12, atol=1e-14
        )
        assert float(problem.value_and_gradient(ours)[0]) == pytest.approx(expected.fun(x))
        if kind == "classifier":
            assert problem.accuracy(ours) == expected.accuracy(x)
            assert problem.accuracy(ours, problem.data, problem.labels) == expected.accuracy(x)
        elif kind != "ica":
            vectors, value = problem.optimum()
            assert float(value) == pytest.approx(expected.optimum()[1], rel=1e-12)
            assert arrays.host(vectors).dtype == np.dtype(dtype)
        result = lo.minimize(problem, method=lo.landing_svrg(), stop=lo.MaxEpochs(3), rng=0)
        assert arrays.host(result.x).shape == problem.shape


# -- independent components ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4, 1e30])
def test_log_cosh_of_terms_is_stable(rng, dtype, size):
    problem = ICA((size * skewed(rng, (40, 3))).astype(dtype))
    x = gaussian(rng, (3, 3), dtype)
    wide = problem.data.astype("f8") @ x.astype("f8")
    expected = np.mean(np.sum(np.logaddexp(wide, -wide) - np.log(2), axis=1)[5:25])
    with np.errstate(all="raise", under="ignore"):
        value = problem.fun_terms(x, slice(5, 25))
        gradient = problem.grad_terms(x, np.arange(5, 25))
    assert abs(value - expected) < 20 * _xp.unit_roundoff(x) * max(1.0, expected)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["landing_saga", "landing_svrg"])
def test_stochastic_ica_finds_the_sources(name):
    problem = ICA.random(6, 3000, rng=1)
    result = lo.minimize(problem, method=getattr(lo, name)(), stop=lo.MaxEpochs(40), rng=2)
    full = lo.minimize(problem, method=lo.landing_lbfgs(), tol=1e-10, rng=2)
    assert amari_distance(result.feasible_x.T, full.feasible_x) < 1e-5
    assert amari_distance(result.feasible_x.T, problem.mixing) < 0.04
    assert amari_distance(np.eye(6), problem.mixing) > 0.1
    assert whiten(problem.data)[0].shape == problem.data.shape  # a public name


# -- sampled principal components ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_sampled_pca_is_pca(rng, dtype):
    data = skewed(rng, (200, 7), dtype)
    sampled, whole = SampledPCA(data, 4), PCA(data, 4)
    x, v = gaussian(rng, (2, 7, 4), dtype)
    assert sampled.fun(x) == pytest.approx(whole.fun(x), rel=1e-13)
    np.testing.assert_allclose(sampled.grad(x), whole.grad(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sampled.hessp(x, v), whole.hessp(x, v), rtol=1e-12, atol=1e-12)
    lo.check_hessian(sampled, x, raise_on_failure=True)
    best, value = sampled.optimum()
    assert value == sampled.fun(best) == pytest.approx(whole.optimum()[1], rel=1e-13)
    expected = whole.optimum()[0]
    np.testing.assert_allclose(best @ best.conj().T, expected @ expected.conj().T, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_optimum_of_sampled_pca(rng, dtype):
    values = np.array([5.0, 0.5, 3.0, 0.0, 1.0])
    problem = SampledPCA.random(40, 5, 2, spectrum=values, rng=0, dtype=dtype)
    unit = _xp.unit_roundoff(problem.like)
    assert problem.data.dtype == np.dtype(dtype)
    K = problem.data.conj().T @ problem.data / 40
    np.testing.assert_allclose(np.linalg.eigvalsh(K), np.sort(values), atol=50 * unit)
    x, value = problem.optimum()
    assert x.dtype == np.dtype(dtype) and type(value) is float
    assert value == pytest.approx(-4.0, rel=20 * unit)
    assert np.abs(x.conj().T @ x - np.eye(2)).max() < 20 * unit
    np.testing.assert_allclose(K @ x, x * [5.0, 3.0], atol=100 * unit)
    assert problem.fun(gaussian(rng, (5, 2), dtype) / 10) > value  # a control


def test_optimum_in_a_component(rng):
    problem = SampledPCA(skewed(rng, (30, 3)), 3)
    for sign in (1, -1):
        x, value = problem.optimum(sign)
        assert np.sign(np.linalg.det(x)) == sign and value == pytest.approx(problem.optimum()[1])
    with pytest.raises(ValueError, match="connected"):
        SampledPCA(skewed(rng, (30, 3)), 2).optimum(1)


def test_default_spectrum_and_reproducibility():
    problem = SampledPCA.random(300, 10, 4, rng=3)
    K = problem.data.T @ problem.data / 300
    np.testing.assert_allclose(np.linalg.eigvalsh(K)[::-1], np.logspace(0, -2, 10), atol=1e-14)
    assert np.abs(K - np.diag(np.diag(K))).max() > 0.01  # not in coordinates
    np.testing.assert_array_equal(SampledPCA.random(300, 10, 4, rng=3).data, problem.data)
    assert repr(problem) == "SampledPCA(n_terms=300, n=10, p=4, float64)"
    single = SampledPCA.random(300, 10, 4, rng=3, dtype="float32")
    np.testing.assert_array_equal(single.data, problem.data.astype("float32"))


@pytest.mark.parametrize("name", ["landing_saga", "landing_svrg"])
def test_variance_reduction_finds_the_components(name):
    problem = SampledPCA.random(2000, 12, 3, spectrum=np.arange(12, 0, -1), rng=0)
    result = lo.minimize(problem, method=getattr(lo, name)(), stop=lo.MaxEpochs(60), rng=1)
    x, value = problem.optimum()
    overlap = np.linalg.svd(x.T @ result.feasible_x)[1]
    assert result.feasible_fun - value < 1e-7 and overlap.min() > 1 - 1e-7


def test_rows_are_read_as_drawn(rng):
    values = skewed(rng, (500, 6))
    rows = Rows(values)
    problem = SampledPCA(rows, 2, chunk_terms=100)
    assert problem.n_terms == 500 and rows.read <= 1  # a row, for dtype and width
    x = gaussian(rng, (6, 2))
    memory = SampledPCA(values, 2)
    rows.read = rows.largest = 0
    for terms in (slice(40, 72), rng.permutation(500)[:32], np.array([7, 8, 9, 300, 8])):
        rows.read = 0
        np.testing.assert_allclose(
            problem.grad_terms(x, terms), memory.grad_terms(x, terms), rtol=1e-13, atol=1e-14
        )
        wanted = 32 if isinstance(terms, slice) else len(np.unique(terms))
        assert rows.read == wanted
    assert rows.largest <= 32
    rows.read = rows.largest = 0
    np.testing.assert_allclose(problem.grad(x), memory.grad(x), rtol=1e-12, atol=1e-13)
    assert rows.read == 500 and rows.largest == 100  # a control: full passes are counted
    assert problem.optimum()[1] == pytest.approx(memory.optimum()[1], rel=1e-12)


def test_a_run_reads_minibatches_only(rng):
    rows = Rows(skewed(rng, (640, 6)))
    problem = SampledPCA(rows, 2)
    rows.read = rows.largest = 0
    result = lo.minimize(
        problem,
        method=lo.landing_sgd(step=0.01, batch_size=32),
        stop=lo.MaxIterations(10),
        record=lo.EveryEpoch(full=False),
        rng=0,
    )
    # The batches that are counted, and a handful of terms that are looked at before the start.
    assert 0 <= rows.read - 32 * result.njev <= 20
    assert 10 <= result.njev <= 11 and rows.largest <= 32


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_memmap(rng, tmp_path, dtype):
    values = skewed(rng, (80, 5), dtype)
    np.save(tmp_path / "rows.npy", values)
    stored = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert isinstance(stored, np.memmap)
    problem, memory = SampledPCA(stored, 2), SampledPCA(values, 2)
    x = gaussian(rng, (5, 2), dtype)
    for terms in blocks(rng):
        gradient = problem.grad_terms(x, terms)
        assert type(gradient) is np.ndarray and gradient.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(gradient, memory.grad_terms(x, terms))
    for method in (lo.landing_sgd(), lo.landing_saga(), lo.landing_svrg()):
        result = lo.minimize(problem, method=method, stop=lo.MaxEpochs(2), rng=0)
        same = lo.minimize(memory, method=method, stop=lo.MaxEpochs(2), rng=0)
        np.testing.assert_array_equal(result.x, same.x)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), values)


def test_sampled_pca_refuses(rng):
    data = skewed(rng, (10, 4))
    with pytest.raises(ValueError, match=r"n_components = 5.*between 1 and n = 4"):
        SampledPCA(data, 5)
    with pytest.raises(ValueError, match="n_components = 0"):
        SampledPCA(data, 0)
    with pytest.raises(TypeError, match="n_components must be an integer"):
        SampledPCA(data, 2.0)
    with pytest.raises(ValueError, match="chunk_terms"):
        SampledPCA(data, 2, chunk_terms=0)
    with pytest.raises(TypeError, match="int64"):
        SampledPCA(np.arange(12).reshape(4, 3), 2)
    with pytest.raises(ValueError, match="matrix"):
        SampledPCA(data[None], 2)
    with pytest.raises(ValueError, match="no rows"):
        SampledPCA(Rows(data[:0]), 2)
    for bad in (np.nan, np.inf):
        data[3, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            SampledPCA(data, 2)
    with pytest.raises(ValueError, match="too few"):
        SampledPCA.random(4, 5, 2, rng=0)
    with pytest.raises(ValueError, match="eigenvalue -1"):
        SampledPCA.random(9, 2, 1, spectrum=[1.0, -1.0])
    with pytest.raises(ValueError, match="finite real eigenvalues"):
        SampledPCA.random(9, 2, 1, spectrum=[1.0, 2.0, 3.0])
    wide = SampledPCA(np.ones((1, 20_001), dtype="float32"), 1)
    with pytest.raises(ValueError, match=r"20001.*landing_svrg"):
        wide.optimum()


# -- the paper's instance --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_online_pca_is_the_recipe(dtype):
    p, n, rows, noise = 5, 60, 4000, 0.1
    problem = online_pca(p, n, rows, noise=noise, rng=0, dtype=dtype)
    data = problem.data
    assert isinstance(problem, SampledPCA) and problem.shape == (n, p)
    assert data.shape == (rows, n) and data.dtype == np.dtype(dtype)
    # Five standard deviations of the noise in means and variances.
    assert np.abs(data.mean(axis=0)).max() < 5 * noise / np.sqrt(rows)
    assert np.abs(data.var(axis=0) - (1 + noise**2)).max() < 5 * 2 * noise / np.sqrt(rows)
    values = np.linalg.eigvalsh(data.conj().T @ data / rows)[::-1]
    assert values[p - 1] > 1.0 and values[:p].sum() == pytest.approx(n, rel=0.01)
    np.testing.assert_allclose(values[p:], noise**2, rtol=0.35)  # Marchenko-Pastur's edges: 0.25


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_online_pca_without_noise_has_rank_p_and_standardised_columns(dtype):
    problem = online_pca(3, 20, 500, noise=0.0, rng=1, dtype=dtype)
    assert np.linalg.matrix_rank(problem.data) == 3
    np.testing.assert_allclose(problem.data.mean(axis=0), 0.0, atol=1e-13)
    np.testing.assert_allclose(problem.data.var(axis=0), 1.0, rtol=1e-12)
    # What was standardised, by the formula.
    rng = np.random.default_rng(1)
    left = lo.stiefel.random(500, 3, rng=rng, dtype=dtype)
    right = lo.stiefel.random(20, 3, rng=rng, dtype=dtype)
    low = (left * np.linspace(1, 0.5, 3)) @ right.conj().T
    expected = (low - low.mean(axis=0)) / low.std(axis=0)
    np.testing.assert_allclose(problem.data, expected, atol=1e-11)


def test_online_pca_refuses():
    assert online_pca(2, 8, 30).data.dtype == np.float32
    with pytest.raises(ValueError, match=r"p = 9"):
        online_pca(9, 8, 30)
    with pytest.raises(ValueError, match="more than n_terms = 5 rows"):
        online_pca(5, 8, 5)
    for bad in (-0.1, np.nan, "much"):
        with pytest.raises(ValueError, match="noise"):
            online_pca(2, 8, 30, noise=bad)


# -- rows that arrive once -------------------------------------------------------------------------


def stream_of(rng, number, to=lambda values: values, dtype="float64"):
    scales = np.array([4.0, 3.0, 1.0, 0.5, 0.2])
    turn = lo.stiefel.random(5, rng=7)
    made = []
    for _ in range(number):
        batch = ((rng.standard_normal((int(rng.integers(40, 60)), 5)) * scales) @ turn).astype(
            dtype
        )
        made.append(to(batch))
    return made, turn[:2].T


def test_stream_recovers_the_subspace(arrays, rng):
    batches, leading = stream_of(rng, 300, arrays.to)
    problem = stream_pca(iter(batches), 5, 2, like=arrays.to(np.zeros(1)))
    result = lo.minimize(problem, method=lo.landing_sgd(step=0.01), rng=0)
    assert result.status.name == "STREAM_ENDED" and result.nit == 300
    x = arrays.host(result.feasible_x)
    assert np.linalg.svd(leading.T @ x)[1].min() > 0.995
    start = lo.stiefel.random(5, 2, rng=0)  # a control: one that has seen nothing
    assert np.linalg.svd(leading.T @ start)[1].min() < 0.9


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_batches_of_a_stream_are_terms_of_the_sum(rng, dtype):
    data = skewed(rng, (30, 6), dtype)
    problem, whole = stream_pca([data], 6, 3), SampledPCA(data, 3)
    x = gaussian(rng, (6, 3), dtype)
    assert problem.fun_batch(x, data[:7]) == pytest.approx(whole.fun_terms(x, slice(0, 7)))
    assert type(problem.fun_batch(x, data)) is float
    np.testing.assert_allclose(problem.grad_batch(x, data), whole.grad(x), rtol=1e-12, atol=1e-12)
    part = lo.Objective(
        lambda x: problem.fun_batch(x, data),
        lambda x: problem.grad_batch(x, data),
        shape=(6, 3),
    )
    lo.check_gradient(part, x, raise_on_failure=True)


def test_stream_keeps_precision(rng):
    batches, _ = stream_of(rng, 5, dtype="float32")
    problem = stream_pca(lambda: batches, 5, 2, like=batches[0])
    first, second = (lo.minimize(problem, method=lo.landing_sgd(step=0.01), rng=0) for _ in "ab")
    assert first.x.dtype == np.float32 and first.nit == 5
    np.testing.assert_array_equal(first.x, second.x)  # a function opens the stream anew


def test_stream_refuses(rng):
    run = {"method": lo.landing_sgd(step=0.01), "rng": 0}
    with pytest.raises(ValueError, match=r"p = 6"):
        stream_pca([], 5, 6)
    with pytest.raises(ValueError, match="n must be"):
        stream_pca([], 5.0, 2)
    with pytest.raises(TypeError, match="iterable"):
        stream_pca(3, 5, 2)
    for bad, what in (
        (np.ones((3, 4)), r"shape \(3, 4\).*\(b, 5\)"),
        (np.ones(5), r"shape \(5,\)"),
        (np.ones((0, 5)), r"shape \(0, 5\)"),
        ([1.0, 2.0], "type list"),
    ):
        with pytest.raises(ValueError, match=what):
            lo.minimize(stream_pca([np.ones((2, 5)), bad], 5, 2), **run)
    with pytest.raises(TypeError, match=r"dtype float32, the variable has float64.*like="):
        lo.minimize(stream_pca([np.ones((2, 5), dtype="float32")], 5, 2), **run)
    with pytest.raises(TypeError, match="arrive once"):
        lo.minimize(stream_pca([np.ones((2, 5))], 5, 2), method=lo.landing_svrg(), rng=0)


# -- the classifier --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["landing_sgd", "landing_saga", "landing_svrg"])
def test_digits_are_told_apart(name):
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    problem = OrthogonalClassifier.digits()
    result = lo.minimize(problem, method=getattr(lo, name)(), stop=lo.MaxEpochs(20), rng=0)
    test = problem.test_features, problem.test_labels
    assert problem.accuracy(result.feasible_x, *test) >= 0.9
    assert problem.accuracy(result.feasible_x) >= 0.9
    assert problem.accuracy(lo.stiefel.random(64, 10, rng=0), *test) < 0.5  # a control
    assert problem.accuracy(result.feasible_x, test[0], np.roll(test[1], 1)) < 0.3


def test_digits_are_split_scaled_and_centred():
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits are scikit-learn's")
    problem = OrthogonalClassifier.digits(test_share=0.25, rng=5, dtype="float32")
    assert problem.shape == (64, 10) and problem.n_terms == 1348
    assert problem.test_features.shape == (449, 64) and problem.test_labels.shape == (449,)
    assert problem.data.dtype == problem.test_features.dtype == np.float32
    assert np.abs(problem.data.mean(axis=0)).max() < 1e-6
    assert np.abs(problem.test_features.mean(axis=0)).max() > 1e-3  # the training mean
    together = np.concatenate([problem.labels, problem.test_labels])
    np.testing.assert_array_equal(np.bincount(together), np.bincount(datasets.load_digits().target))
    assert np.ptp(problem.data, axis=0).max() == pytest.approx(1.0)
    other = OrthogonalClassifier.digits(test_share=0.25, rng=6)
    assert (other.test_labels != problem.test_labels).any()
    assert OrthogonalClassifier.digits(test_share=0.0).test_features is None
    with pytest.raises(ValueError, match="test_share"):
        OrthogonalClassifier.digits(test_share=1.0)


def test_digits_without_scikit_learn(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"landingopt\[examples\]"):
        OrthogonalClassifier.digits()


def test_default_scale_follows_the_features(rng):
    features, labels = skewed(rng, (400, 8)), rng.integers(3, size=400)
    problem = OrthogonalClassifier(features, labels, chunk_terms=33)
    assert problem.scale == pytest.approx(1 / np.sqrt(np.mean(features**2)))
    scores = [problem.scale * features @ lo.stiefel.random(8, 3, rng=i) for i in range(200)]
    assert np.sqrt(np.mean(np.square(scores))) == pytest.approx(1.0, rel=0.1)
    large = OrthogonalClassifier(1e6 * features, labels)
    x = gaussian(rng, (8, 3))
    assert large.fun(x) == pytest.approx(problem.fun(x), rel=1e-12)
    assert OrthogonalClassifier(features, labels, scale=2).scale == 2.0
    assert problem.scale != 2.0


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e4, 1e30])
def test_losses_do_not_overflow(rng, size):
    features, labels = size * skewed(rng, (50, 4)), rng.integers(3, size=50)
    problem = OrthogonalClassifier(features, labels, scale=5.0)
    x = gaussian(rng, (4, 3))
    with np.errstate(all="raise", under="ignore"):
        value, gradient = problem.value_and_gradient(x)
    z = 5.0 * features @ x
    expected = np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(50), labels])
    assert value == pytest.approx(expected, rel=1e-12) and np.isfinite(gradient).all()


def test_labels_of_every_integer_kind(rng):
    features = skewed(rng, (6, 5))
    labels = [0, 2, 1, 1, 0, 2]
    x = gaussian(rng, (5, 3))
    expected = OrthogonalClassifier(features, np.array(labels)).fun(x)
    for given in (labels, np.array(labels, dtype="uint8"), np.array(labels, dtype="int32")):
        problem = OrthogonalClassifier(features, given)
        assert problem.shape == (5, 3) and problem.fun(x) == expected
    more = OrthogonalClassifier(features, labels, n_classes=5)
    assert more.shape == (5, 5)
    np.testing.assert_array_equal(labels, [0, 2, 1, 1, 0, 2])


def test_labels_are_copied(rng):
    labels = rng.integers(3, size=20)
    labels[:3] = 0, 1, 2
    problem = OrthogonalClassifier(skewed(rng, (20, 4)), labels)
    x = gaussian(rng, (4, 3))
    before = problem.fun(x)
    labels[...] = 0
    assert problem.fun(x) == before


def test_features_from_a_file(rng):
    values, labels = skewed(rng, (90, 5)), rng.integers(3, size=90)
    stored, memory = (
        OrthogonalClassifier(Rows(values), labels),
        OrthogonalClassifier(values, labels),
    )
    x = gaussian(rng, (5, 3))
    assert stored.scale == pytest.approx(memory.scale, rel=1e-14)
    assert stored.fun(x) == pytest.approx(memory.fun(x), rel=1e-13)
    assert stored.accuracy(x) == memory.accuracy(x)
    assert repr(stored) == "OrthogonalClassifier(n_terms=90, n=5, p=3, float64)"


def test_classifier_refuses(rng):
    features = skewed(rng, (6, 4))
    labels = np.array([0, 1, 2, 0, 1, 2])
    build = OrthogonalClassifier
    with pytest.raises(TypeError, match=r"labels have dtype float64.*return_inverse"):
        build(features, labels.astype(float))
    with pytest.raises(TypeError, match="labels have dtype bool"):
        build(features, labels > 0)
    with pytest.raises(TypeError, match="labels have dtype <U"):
        build(features, ["a", "b", "c", "a", "b", "c"])
    with pytest.raises(ValueError, match=r"-1\.\.1; they must lie in 0\.\.1"):
        build(features, labels - 1)
    with pytest.raises(ValueError, match=r"0\.\.2; they must lie in 0\.\.1"):
        build(features, labels, n_classes=2)
    with pytest.raises(ValueError, match=r"shape \(5,\); one for each of the 6 rows"):
        build(features, labels[:5])
    with pytest.raises(ValueError, match=r"shape \(6, 1\)"):
        build(features, labels[:, None])
    with pytest.raises(ValueError, match="5 orthonormal directions need as many features"):
        build(features, labels, n_classes=5)
    with pytest.raises(ValueError, match="one class only"):
        build(features, 0 * labels)
    with pytest.raises(ValueError, match="n_classes must be"):
        build(features, labels, n_classes=3.0)
    with pytest.raises(TypeError, match="real features"):
        build(features + 0j, labels)
    with pytest.raises(ValueError, match="all zero"):
        build(0 * features, labels)
    with pytest.raises(ValueError, match="NaN or infinite"):
        build(features * np.array([1.0, np.nan, 1.0, 1.0]), labels)
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="scale must be positive"):
            build(features, labels, scale=bad)
    with pytest.raises(TypeError, match="scale must be one positive number"):
        build(features, labels, scale="warm")
    problem, x = build(features, labels), gaussian(rng, (4, 3))
    with pytest.raises(ValueError, match="features and labels"):
        problem.accuracy(x, features)
    with pytest.raises(ValueError, match="features and labels"):
        problem.accuracy(x, labels=labels)
    with pytest.raises(ValueError, match="5 columns; those of the problem have 4"):
        problem.accuracy(x, skewed(rng, (6, 5)), labels)
