"""lo.autodiff with data=: finite sums from the loss of one sample, by JAX and PyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import landingopt as lo
from landingopt import autodiff

N, P, TERMS = 6, 3, 45
LIBRARIES = ["jax", "torch"]
# Slices and indices: one term, one that comes twice, unequal blocks, all; few sizes, as JAX compiles
# for each.
DRAWS = [
    slice(0, 20),
    slice(40, 45),
    slice(7, 8),
    np.array([3, 44, 3, 0, 9]),
    np.array([12]),
    np.arange(44, 4, -1)[::2],
    slice(0, TERMS),
]


class Library:
    """One library: its functions under NumPy's names, and the loss of scores and a label."""

    def __init__(self, name):
        self.name = name
        pytest.importorskip(name, reason=f"needs {name}")
        module = {"jax": "jax.numpy", "torch": "torch"}[name]
        self.numpy = pytest.importorskip(module, reason=f"needs {name}")

    def sum(self, fun, data, shape=(N, P), **options):
        return getattr(autodiff, self.name)(fun, shape=shape, data=data, **options)

    def cross_entropy(self, scores, label):
        if self.name == "torch":
            return self.numpy.nn.functional.cross_entropy(scores, label)
        jax = pytest.importorskip("jax", reason="needs jax")
        return jax.nn.logsumexp(scores) - scores[label]


@pytest.fixture(params=LIBRARIES)
def library(request):
    return Library(request.param)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs torch")


def values(seed, *shape, dtype="float64"):
    rng = np.random.default_rng(seed)
    result = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        result = result + 1j * rng.standard_normal(shape)
    return result.astype(dtype)


def point(seed=3, n=N, p=P, dtype="float64"):
    return np.linalg.qr(values(seed, n, p, dtype=dtype))[0]


def labels(count=TERMS, dtype=np.int64):
    return np.random.default_rng(5).integers(0, P, count).astype(dtype)


def ica(library, A):
    """The log-cosh sum of ICA, by the library and by hand."""
    xp = library.numpy

    def fun(x, terms):
        return float(np.mean(np.sum(np.log(np.cosh(A[terms] @ x)), axis=1)))

    def grad(x, terms):
        rows = A[terms]
        return rows.T @ np.tanh(rows @ x) / len(rows)

    derived = library.sum(lambda x, a: xp.sum(xp.log(xp.cosh(a @ x))), A, A.shape[1:] * 2)
    by_hand = lo.FiniteSum(fun, grad, n_terms=len(A), shape=A.shape[1:] * 2)
    return derived, by_hand


def logistic(library, features, y, **options):
    """Multinomial logistic regression, by the library and by hand."""

    def fun(x, terms):
        scores = features[terms] @ x
        chosen = scores[np.arange(len(scores)), y[terms]]
        return float(np.mean(np.log(np.sum(np.exp(scores), axis=1)) - chosen))

    def grad(x, terms):
        rows = features[terms]
        share = np.exp(rows @ x)
        share /= np.sum(share, axis=1, keepdims=True)
        share[np.arange(len(rows)), y[terms]] -= 1.0
        return rows.T @ share / len(rows)

    shape = (features.shape[1], P)
    derived = library.sum(
        lambda x, a, label: library.cross_entropy(a @ x, label), (features, y), shape, **options
    )
    return derived, lo.FiniteSum(fun, grad, n_terms=len(y), shape=shape)


def agree(derived, by_hand, x, draws=DRAWS, tolerance=1e-10):
    """Values and gradients for every draw, and of the whole."""
    for terms in draws:
        f, G = derived.fun_terms(x, terms), derived.grad_terms(x, terms)
        assert isinstance(f, float)
        assert type(G) is np.ndarray and G.dtype == x.dtype
        assert f == pytest.approx(by_hand.fun_terms(x, terms), rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(G, by_hand.grad_terms(x, terms), rtol=0, atol=tolerance)
    assert derived.fun(x) == pytest.approx(by_hand.fun(x), rel=tolerance)
    np.testing.assert_allclose(derived.grad(x), by_hand.grad(x), rtol=0, atol=tolerance)


# -- values and gradients -------------------------------------------------------------------------


def test_one_array(library):
    derived, by_hand = ica(library, values(1, TERMS, N))
    assert isinstance(derived, lo.FiniteSum)
    assert (derived.n_terms, derived.shape, derived.hessp) == (TERMS, (N, N), None)
    agree(derived, by_hand, point(p=N))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, ">i4"])
def test_features_and_labels(library, kind):
    derived, by_hand = logistic(library, values(2, TERMS, N), labels())
    agree(derived, by_hand, point())


@pytest.mark.parametrize("kind", ["int32", "uint8", ">i4", "bool", ">f8"])
def test_data_of_other_kinds(library, kind):
    xp, weight = library.numpy, (values(4, TERMS) > 0).astype(kind)
    A = values(1, TERMS, N)
    derived = library.sum(lambda x, a, w: w * xp.sum((a @ x) ** 2), (A, weight))
    x, terms = point(), np.array([9, 4, 30])
    expected = 2 * (A[terms] * weight[terms, None]).T @ A[terms] @ x / 3
    np.testing.assert_allclose(derived.grad_terms(x, terms), expected, rtol=0, atol=1e-12)


def test_the_comparison_can_fail(library):
    """A wrong gradient, a sum in place of a mean, other labels: none of them passes."""
    features, y = values(2, TERMS, N), labels()
    derived, by_hand = logistic(library, features, y)
    x = point()
    wrong = [
        lambda x, terms: by_hand.grad_terms(x, terms) * (1 + 1e-8),
        lambda x, terms: by_hand.grad_terms(x, terms) * len(features[terms]),
        lambda x, terms: -by_hand.grad_terms(x, terms),
        logistic(library, features, (y + 1) % P)[1].grad_terms,
    ]
    for grad in wrong:
        other = lo.FiniteSum(by_hand.fun_terms, grad, n_terms=TERMS, shape=(N, P))
        with pytest.raises(AssertionError):
            agree(derived, other, x)


def test_dicts_name_the_arguments(library):
    features, y = values(2, TERMS, N), labels()
    _, by_hand = logistic(library, features, y)
    derived = library.sum(
        lambda x, label, a: library.cross_entropy(a @ x, label), {"label": y, "a": features}
    )
    agree(derived, by_hand, point())


def test_samples_that_are_matrices_or_numbers(library):
    xp = library.numpy
    A, b = values(1, TERMS, 4, N), values(2, TERMS)
    derived = library.sum(lambda x, a, c: c * xp.sum((a @ x) ** 2), (A, b))
    by_hand = lo.FiniteSum(
        lambda x, t: float(np.mean(b[t] * np.sum((A[t] @ x) ** 2, axis=(1, 2)))),
        lambda x, t: np.mean(2 * b[t][:, None, None] * (A[t].mT @ (A[t] @ x)), axis=0),
        n_terms=TERMS,
        shape=(N, P),
    )
    agree(derived, by_hand, point())


def test_float32_stays_float32(library):
    features, y = values(2, TERMS, N, dtype="float32"), labels()
    derived, by_hand = logistic(library, features, y)
    x = point(dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(derived, by_hand, x, tolerance=1e-6)
    result = lo.minimize(derived, x, method=lo.landing_sgd(), stop=lo.MaxEpochs(2), rng=0)
    assert result.x.dtype == np.float32


@pytest.mark.parametrize("chunk", [1, 7, 45, 100])
def test_chunks_of_a_full_pass(library, chunk):
    features, y = values(2, TERMS, N), labels()
    derived, by_hand = logistic(library, features, y, chunk_terms=chunk)
    assert derived.chunk_terms == chunk
    agree(derived, by_hand, point(), draws=[])


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_against_finite_differences(library, dtype):
    """df = Re tr(G^H dx): |a^H x|^4 and a term that is not symmetric under conjugation."""
    xp = library.numpy
    A, b = values(1, TERMS, N, dtype=dtype), values(2, TERMS, dtype=dtype)

    def loss(x, a, c):
        return xp.sum(xp.abs(xp.conj(a) @ x) ** 4) + xp.real(c * xp.sum((a @ x) ** 2))

    derived = library.sum(loss, (A, b))
    x, v, terms = point(dtype=dtype), values(7, N, P, dtype=dtype), np.array([4, 40, 11])
    G = derived.grad_terms(x, terms)
    assert G.dtype == x.dtype

    # In double precision whatever x has, so that rounding does not hide a wrong gradient.
    wide = [array.astype("complex128") for array in (A, b, x, v)]
    exact = library.sum(loss, (wide[0], wide[1]))
    h = 1e-5
    change = exact.fun_terms(wide[2] + h * wide[3], terms)
    change -= exact.fun_terms(wide[2] - h * wide[3], terms)
    slope, size = float(np.real(np.vdot(G, v))), np.linalg.norm(G) * np.linalg.norm(v)
    assert abs(slope - change / (2 * h)) < (1e-8 if dtype == "complex128" else 1e-5) * size
    # The conjugate is far from it: the test would notice.
    assert abs(float(np.real(np.vdot(G.conj(), v))) - change / (2 * h)) > 1e-3 * size


def complex_sum(library):
    """PCA of complex samples: its minimisers are known."""
    xp, A = library.numpy, values(1, 2000, N, dtype="complex128") * np.arange(N, 0, -1)
    return library.sum(lambda x, a: -0.5 * xp.sum(xp.abs(xp.conj(a) @ x) ** 2), A), A


def test_a_complex_run(library):
    derived, A = complex_sum(library)
    assert str(derived.like.dtype) == "complex128"
    result = lo.minimize(derived, method=lo.landing_svrg(), tol=1e-6, rng=0)
    assert result.success
    top = np.linalg.eigvalsh(A.T @ A.conj() / len(A))[-P:]
    assert float(result.fun) == pytest.approx(-0.5 * top.sum(), rel=1e-8)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_products_of_blocks(library, kind):
    features, y = values(2, TERMS, N), labels()
    names = ("W", "b")  # JAX gives a dict back in another order than this one's reverse
    shape, constraint = ((N, P), (P,)), (lo.Stiefel(), lo.Euclidean())
    x = (point(), values(8, P))

    def score(W, b, a, label):
        return library.cross_entropy(a @ W + b, label)

    if kind is tuple:
        derived = library.sum(
            lambda x, a, label: score(*x, a, label), (features, y), shape, constraint=constraint
        )
        G = derived.grad_terms(x, slice(3, 20))
        assert type(G) is tuple
    else:
        shape, constraint, x = (
            dict(zip(names[::-1], item[::-1], strict=True)) for item in (shape, constraint, x)
        )
        derived = library.sum(
            lambda x, a, label: score(x["W"], x["b"], a, label),
            (features, y),
            shape,
            constraint=constraint,
        )
        G = derived.grad_terms(x, slice(3, 20))
        assert list(G) == ["b", "W"]
        x, G = (x["W"], x["b"]), (G["W"], G["b"])
    # The bias is the weight of a feature that is always 1.
    wide = np.hstack([features, np.ones((TERMS, 1))])
    _, by_hand = logistic(library, wide, y)
    expected = by_hand.grad_terms(np.vstack([x[0], x[1][None]]), slice(3, 20))
    np.testing.assert_allclose(G[0], expected[:-1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(G[1], expected[-1], rtol=0, atol=1e-10)
    result = lo.minimize(derived, method=lo.landing_sgd(), stop=lo.MaxEpochs(2), rng=0)
    assert type(result.x) is kind


def test_a_stack_is_one_problem(library):
    xp, A = library.numpy, values(1, TERMS, N)
    derived = library.sum(lambda x, a: xp.sum((a @ x) ** 3), A, (2, N, P))
    x = np.stack([point(3), point(4)])
    expected = np.mean(3 * A[:, None, :, None] * (A[:, None, None] @ x) ** 2, axis=0)
    np.testing.assert_allclose(derived.grad(x), expected, rtol=0, atol=1e-10)
    result = lo.minimize(derived, x, method=lo.landing_sgd(), stop=lo.MaxEpochs(1), rng=0)
    assert np.shape(result.fun) == ()


# -- runs -----------------------------------------------------------------------------------------


def test_svrg_converges(library):
    features = values(2, 3000, N)
    y = np.argmax(features @ values(6, N, P) + values(7, 3000, P), axis=1)
    derived, by_hand = logistic(library, features, y)
    result = lo.minimize(derived, method=lo.landing_svrg(), tol=1e-6, rng=0)
    assert result.success
    full = lo.minimize(by_hand, np.asarray(result.feasible_x), method=lo.landing(), tol=1e-6)
    assert float(result.fun) == pytest.approx(float(full.fun), rel=1e-8)


def test_sgd_comes_close(library):
    derived, by_hand = ica(library, np.random.default_rng(0).laplace(size=(1000, N)))
    x0 = point(p=N)
    result = lo.minimize(derived, x0, method=lo.landing_sgd(), rng=0)
    assert result.status.name == "MAX_EPOCHS"
    best = float(lo.minimize(by_hand, x0, method=lo.landing()).fun)
    assert float(result.fun) - best < 0.01 * (by_hand.fun(x0) - best)


@pytest.mark.parametrize("method", ["landing_sgd", "landing_svrg", "landing_saga"])
def test_trajectories_are_those_of_the_sum_by_hand(library, method):
    """The same draws, so that only rounding is between the two."""
    derived, by_hand = logistic(library, values(2, TERMS, N), labels())
    rng = np.random.default_rng(9)
    draws = [int(i) for i in rng.integers(0, 5, 30)]  # blocks of 10, the last one of 5
    if method != "landing_saga":
        draws = [rng.integers(TERMS, size=10), slice(3, 13), slice(40, 45), *draws][:30]
    recipe = getattr(lo, method)(0.3, batch_size=10, sampler=lo.samplers.Replay(draws))
    ends = []
    for problem in (derived, by_hand):
        result = lo.minimize(
            problem, point(), method=recipe, stop=lo.MaxIterations(20), record=lo.Every(1), rng=0
        )
        ends.append(result)
    np.testing.assert_allclose(ends[0].x, ends[1].x, rtol=0, atol=1e-12)
    for name in ("fun", "gradient_norm", "epoch"):
        np.testing.assert_allclose(ends[0].trace[name], ends[1].trace[name], rtol=1e-9)
    assert np.linalg.norm(ends[0].x - point()) > 0.1


def test_starts_are_like_the_data(library):
    for dtype in ("float32", "float64"):
        derived, _ = logistic(library, values(2, TERMS, N, dtype=dtype), labels())
        assert type(derived.like) is np.ndarray and derived.like.dtype == dtype
    first = library.sum(lambda x, y: x[0, 0] * y, labels())
    assert first.like is None
    assert library.sum(lambda x, a: a, values(1, TERMS, dtype=">f8")).like.dtype == np.float64
    dtype = "float32" if library.name == "jax" else library.numpy.float32
    derived = library.sum(lambda x, a: a, values(1, TERMS), dtype=dtype)
    assert str(derived.like.dtype).endswith("float32")


# -- the data -------------------------------------------------------------------------------------


def test_a_memmap_is_read_where_it_is_needed(library, tmp_path):
    resource = pytest.importorskip("resource", reason="needs the memory of a process")
    path = tmp_path / "samples"
    with path.open("wb") as file:
        file.truncate(2**30)  # of zeros, without a block on the disk
    data = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, 64)
    xp, x = library.numpy, point(n=64, dtype="float32")

    def loss(x, a):
        return xp.sum((a @ x) ** 2)

    terms = np.random.default_rng(0).integers(len(data), size=32)
    library.sum(loss, np.zeros((32, 64), np.float32), (64, P)).grad_terms(x, slice(0, 32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = library.sum(loss, data, (64, P))
    for draw in (terms, slice(100, 132), slice(len(data) - 32, len(data))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PyTorch's, of memory that is not writable
            assert not problem.grad_terms(x, draw).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_the_data_stay_as_they_are(library):
    A = values(1, TERMS, N)
    before = A.copy()
    A.flags.writeable = False
    derived, by_hand = ica(library, A)
    indices = np.array([5, 1])
    indices.flags.writeable = False
    x = point(p=N)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agree(derived, by_hand, x, [slice(0, 4), indices, indices[::-1]])
    np.testing.assert_array_equal(A, before)


@pytest.mark.parametrize("what", ["x", "data"])
def test_the_gradient_does_not_follow(library, what):
    """A gradient that equals x, or a sample, is not their memory."""
    xp, A, x = library.numpy, values(1, 1, 64, 64), values(2, 64, 64)
    losses = {"x": lambda x, a: 0.5 * xp.sum(x * x), "data": lambda x, a: xp.sum(x * a)}
    G = library.sum(losses[what], A, (64, 64)).grad_terms(x, slice(0, 1))
    expected = (x if what == "x" else A[0]).copy()
    x[:], A[:] = 0, 0
    np.testing.assert_array_equal(G, expected)


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fun_terms", "grad_terms"])
def test_what_is_not_the_loss_of_one_sample(library, call):
    xp = library.numpy

    def evaluate(fun):
        problem = library.sum(fun, (values(1, TERMS, N), labels()))
        getattr(problem, call)(point(), slice(0, 5))

    one = "^with data, fun must return the loss of one sample, a real number"
    with pytest.raises(ValueError, match=rf"{one}.*shape \(3,\).*sample of shape \(6,\), \(\)"):
        evaluate(lambda x, a, y: a @ x)
    with pytest.raises(ValueError, match=rf"{one}.*shape \(1,\)"):
        evaluate(lambda x, a, y: (a @ x)[:1])
    with pytest.raises(TypeError, match=rf"{one}.*int64"):
        evaluate(lambda x, a, y: xp.argmax(a @ x))
    with pytest.raises(TypeError, match=rf"{one}.*complex128"):
        evaluate(lambda x, a, y: xp.sum(a @ x) * 1j)
    with pytest.raises(TypeError, match="returned None"):
        evaluate(lambda x, a, y: None)
    with pytest.raises(TypeError, match="if on values"):
        evaluate(lambda x, a, y: xp.sum(a @ x) if y > 1 else xp.sum(x))
    with pytest.raises(TypeError, match=r"float\(\)"):
        evaluate(lambda x, a, y: xp.sum(x) * float(y))
    with pytest.raises(TypeError, match="positional argument"):
        evaluate(lambda x, a: xp.sum(x))


def test_data_that_are_none(library):
    def refused(data, kind, match):
        with pytest.raises(kind, match=match):
            library.sum(lambda x, a: x, data)

    A, y = values(1, TERMS, N), labels()
    refused((A, y[:-1]), ValueError, r"data\[0\] 45, data\[1\] 44")
    refused({"a": A, "label": y[:-1]}, ValueError, r"data\['label'\] 44")
    refused(A[:0], ValueError, r"no samples: data has shape \(0, 6\)")
    refused((), ValueError, "no arrays")
    refused({}, ValueError, "no arrays")
    refused(np.array(1.0), ValueError, "first axis")
    refused([A, y], TypeError, r"NumPy arrays .* data is a list")
    refused((A, [0, 1]), TypeError, r"data\[1\] is a list")
    refused(A.astype(object), TypeError, "data is of object")
    refused(np.array(["a", "b"]), TypeError, "data is of <U1")
    refused({1: A}, TypeError, "names of data")
    for count in (0, 1.5, True):
        with pytest.raises(ValueError, match="chunk_terms must be a whole number"):
            library.sum(lambda x, a: x, A, chunk_terms=count)


def test_chunks_without_data(library):
    with pytest.raises(TypeError, match="pass data too"):
        library.sum(lambda x: library.numpy.sum(x), None, chunk_terms=3)


def test_errors_of_the_users_own_pass_through(library):
    def fun(x, a):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        library.sum(fun, values(1, TERMS, N)).grad(point())


def test_arrays_of_other_libraries():
    jax, torch = Library("jax"), Library("torch")
    with pytest.raises(TypeError, match=r"NumPy arrays .*jax; data is a torch\.Tensor"):
        jax.sum(lambda x, a: x, torch.numpy.ones(3))
    for library in (jax, torch):
        with pytest.raises(TypeError, match=r"data\[1\] is a jax.*numpy\.asarray"):
            library.sum(lambda x, a, b: x, (np.ones(3), jax.numpy.ones(3)))


def test_x_of_other_kinds():
    problem = Library("jax").sum(lambda x, a: x.sum(), values(1, TERMS))
    with pytest.raises(TypeError, match="NumPy arrays of floats"):
        problem.grad([[1.0]])
    problem = Library("torch").sum(lambda x, a: x.sum(), values(1, TERMS))
    with pytest.raises(TypeError, match="x must be of PyTorch tensors and NumPy arrays"):
        problem.grad([[1.0]])


# -- JAX ------------------------------------------------------------------------------------------


def test_jax_compiles_once_for_each_size():
    xp, sizes = Library("jax").numpy, []

    def fun(x, a):
        sizes.append(1)
        return xp.sum((a @ x) ** 2)

    problem = autodiff.jax(fun, shape=(N, P), data=values(1, TERMS, N))
    for terms in (slice(0, 20), slice(20, 40), np.arange(20), np.arange(25, 45)):
        problem.grad_terms(point(), terms)
    assert len(sizes) == 1
    problem.grad_terms(point(), slice(40, 45))  # a last one that is smaller
    assert len(sizes) == 2
    problem.grad_terms(point(), np.array([1, 1, 2, 3, 4]))
    assert len(sizes) == 2


def test_jax_keeps_the_users_configuration():
    jax = pytest.importorskip("jax", reason="needs jax")
    before = jax.config.jax_enable_x64
    derived, by_hand = ica(Library("jax"), values(1, TERMS, N))
    agree(derived, by_hand, point(p=N))
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.zeros(2).dtype == (np.float64 if before else np.float32)


def test_jax_does_not_cut_integers():
    """Without double precision it has 32 bits for them (importing pymanopt switches it on for all)."""
    jax = pytest.importorskip("jax", reason="needs jax")
    large, x = np.array([2**40 + 1, 2**40 + 2]), np.ones((N, P))
    problem = autodiff.jax(lambda x, i: x[0, 0] * (i % 7), shape=(N, P), data=large)
    assert problem.fun(x) == np.mean(large % 7)
    if jax.config.jax_enable_x64:
        assert problem.fun(x.astype("float32")) == np.float32(np.mean(large % 7))
    else:
        with pytest.raises(ValueError, match="no integers beyond 32 bits"):
            problem.fun(x.astype("float32"))
    problem = autodiff.jax(lambda x, i: x[0, 0] * (i % 7), shape=(N, P), data=large % 7)
    assert problem.fun(x.astype("float32")) == np.mean(large % 7)


# -- PyTorch --------------------------------------------------------------------------------------


def test_tensors_in_tensors_out(torch):
    features, y = values(2, TERMS, N), labels()
    derived, by_hand = logistic(Library("torch"), torch.as_tensor(features), torch.as_tensor(y))
    _, by_hand = logistic(Library("torch"), features, y)
    assert torch.is_tensor(derived.like) and derived.like.dtype == torch.float64
    x = torch.as_tensor(point())
    for terms in DRAWS:
        f, G = derived.fun_terms(x, terms), derived.grad_terms(x, terms)
        for result in (f, G):
            assert torch.is_tensor(result) and result.dtype == torch.float64
            assert not result.requires_grad and result.grad_fn is None
        assert f.shape == ()
        assert float(f) == pytest.approx(by_hand.fun_terms(point(), terms), rel=1e-10)
        np.testing.assert_allclose(
            G.numpy(), by_hand.grad_terms(point(), terms), rtol=0, atol=1e-10
        )
    assert not x.requires_grad and x.grad is None
    agree(derived, by_hand, point())  # of tensors, at NumPy's x
    result = lo.minimize(derived, method=lo.landing_sgd(), stop=lo.MaxEpochs(1), rng=0)
    assert torch.is_tensor(result.x)


def test_tensors_at_x_and_numpy_data(torch):
    features, y = values(2, TERMS, N), labels()
    derived, by_hand = logistic(Library("torch"), features, y)
    G = derived.grad_terms(torch.as_tensor(point()), np.array([4, 4, 2]))
    assert torch.is_tensor(G)
    expected = by_hand.grad_terms(point(), np.array([4, 4, 2]))
    np.testing.assert_allclose(G.numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_torch_modes_of_the_caller_do_not_matter(torch, mode):
    features, y = values(2, TERMS, N), labels()
    _, by_hand = logistic(Library("torch"), features, y)
    with getattr(torch, mode)():
        tensors = torch.as_tensor(features) * 1.0, torch.as_tensor(y) * 1
        derived, _ = logistic(Library("torch"), *tensors)
        for terms in (slice(0, 7), np.array([3, 1])):
            G = derived.grad_terms(torch.as_tensor(point()) * 1.0, terms)
            expected = by_hand.grad_terms(point(), terms)
            np.testing.assert_allclose(G.numpy(), expected, rtol=0, atol=1e-10)
        assert not torch.is_grad_enabled()


def test_torch_leaves_the_data_and_the_parameters_of_fun_alone(torch):
    weight = torch.ones(N, P, dtype=torch.float64).requires_grad_()
    data = torch.as_tensor(values(1, TERMS, N)).requires_grad_()
    x = torch.as_tensor(point()).requires_grad_()
    problem = autodiff.torch(lambda x, a: ((a @ x) * (a @ weight)).sum(), shape=(N, P), data=data)
    G = problem.grad_terms(x, slice(0, 4))
    assert weight.grad is None and data.grad is None and x.grad is None
    assert x.requires_grad and data.requires_grad
    assert not G.requires_grad and not problem.fun_terms(x, slice(0, 4)).requires_grad


def test_torch_names_dtypes_that_differ(torch):
    problem = autodiff.torch(lambda x, a: (a @ x).sum(), shape=(N, P), data=values(1, TERMS, N))
    with pytest.raises(TypeError, match=r"torch\.float32, torch\.float64: nothing is cast"):
        problem.grad(point(dtype="float32"))


def test_torch_devices_that_differ(torch):
    """The device "meta" holds no numbers, and is on every machine."""
    A, there = torch.ones(TERMS, N), torch.ones(TERMS, device="meta")
    with pytest.raises(ValueError, match=r"on one device; got data on meta and cpu"):
        autodiff.torch(lambda x, a, b: x, shape=(N, P), data=(A, there))
    with pytest.raises(ValueError, match=r"on one device; got data on cpu and meta"):
        autodiff.torch(lambda x, a: x, shape=(N, P), data=A, device="meta")
    problem = autodiff.torch(lambda x, b: x.sum() * b, shape=(N, P), data=there)
    assert problem.like.device.type == "meta"
    with pytest.raises(ValueError, match="x is on cpu and the data are on meta"):
        problem.grad_terms(torch.ones(N, P), slice(0, 2))


def test_torch_cut_graphs_are_explained(torch):
    problem = autodiff.torch(
        lambda x, a: (a @ x.detach()).sum(), shape=(N, P), data=values(1, 9, N)
    )
    with pytest.raises(ValueError, match="does not depend on x through PyTorch"):
        problem.grad(point())


# -- a GPU ----------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_torch_on_a_gpu(torch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device that PyTorch finds")
    features, y = values(2, TERMS, N), labels()
    _, by_hand = logistic(Library("torch"), features, y)
    there = torch.as_tensor(features).cuda(), torch.as_tensor(y).cuda()
    x = torch.as_tensor(point()).cuda()
    for data in ((features, y), there):
        derived, _ = logistic(Library("torch"), *data)
        for terms in DRAWS:
            G = derived.grad_terms(x, terms)
            assert G.device == x.device
            expected = by_hand.grad_terms(point(), terms)
            np.testing.assert_allclose(G.cpu().numpy(), expected, rtol=0, atol=1e-10)
    agree(derived, by_hand, point())
    assert derived.like.device == x.device
    result = lo.minimize(derived, method=lo.landing_sgd(), stop=lo.MaxEpochs(1), rng=0)
    assert result.x.device == x.device
