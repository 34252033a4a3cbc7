"""Principal components from samples: some rows of the data a step, or each row once."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from landingopt import _xp, stiefel
from landingopt._xp import Array
from landingopt.problems import _common
from landingopt.problems.pca import PCA
from landingopt.samplers import Terms
from landingopt.sums import LinearModelSum, Stream, check_count

_LARGEST = 20_000  # rows of a second-moment matrix that is formed: 3 GiB in float64
_NOISE = 1 << 22  # random numbers drawn at a time


class SampledPCA(LinearModelSum):
    r"""Principal components of sampled rows, min :math:`\frac1N \sum_i -\frac12 \|a_i^T X\|^2`.

    The objective of :class:`PCA` over :math:`X^H X = I`, as a mean over the rows of the data, of which
    a stochastic method reads a few a step. The minimum is minus half the sum of the p largest
    eigenvalues of the second-moment matrix K = D^H D / N.

    Parameters
    ----------
    data : array (N, n)
        A sample a row: an array of any library, a ``numpy.memmap``, or any object with ``__len__`` and
        slices (h5py, zarr), whose rows are read when they are drawn. Real or complex, float32 or
        float64 precision. NOT centred here, as for :class:`PCA`.
    n_components : int
        p, between 1 and n.
    chunk_terms : int, optional
        Rows that a full pass works on at a time; about a million numbers by default.

    Attributes
    ----------
    data : array or object (N, n)
    n_terms : int
        N.
    shape : tuple
        (n, p).
    constraint : Stiefel

    Raises
    ------
    TypeError
        Not floating point data, or a number of components that is not an integer.
    ValueError
        Not one matrix, empty, entries that are not finite (looked for in memory only, not in files), or
        a number of components outside 1..n.

    See Also
    --------
    PCA : the same objective from K, where K fits: then that is faster.
    online_pca : a large random instance.
    stream_pca : rows that arrive once.

    Notes
    -----
    Cost: ``fun`` is one product of N n p multiplications, ``grad``, ``value_and_gradient`` and
    ``hessp`` two; of b terms, the same with b in place of N.

    References
    ----------
    [AVGA24] (online PCA).

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.SampledPCA.random(2000, 20, 5, rng=0)
    >>> problem
    SampledPCA(n_terms=2000, n=20, p=5, float64)
    >>> result = lo.minimize(problem, method=lo.landing_saga(), tol=1e-6, rng=0)
    >>> abs(result.feasible_fun - problem.optimum()[1]) < 1e-9
    True
    """

    def __init__(self, data: Any, n_components: int, chunk_terms: int | None = None):
        super().__init__(_half_squares, _negative, data, chunk_terms=chunk_terms)
        n = self.shape[0]
        self.shape = (n, _common.check_columns(n_components, n, "n_components"))
        if self._in_memory and not isinstance(data, np.memmap) and not _xp.all_finite(self.data):
            raise ValueError("data has entries that are NaN or infinite; finite data is needed.")

    @classmethod
    def random(
        cls,
        n_terms: int,
        n: int,
        p: int,
        *,
        spectrum: Any = None,
        rng: Any = None,
        dtype: Any = np.float64,
    ) -> SampledPCA:
        r"""Data :math:`\sqrt N\, Q\, \mathrm{diag}(\sqrt{\sigma})\, V^H`, whose K has this spectrum.

        Q (N, n) and V (n, n) have orthonormal columns drawn uniformly, so that the eigenvalues of
        D^H D / N are the given ones, to rounding, and not only in the mean.

        Parameters
        ----------
        n_terms : int
            N >= n, rows of the data.
        n, p : int
            Rows and columns of X.
        spectrum : sequence of n numbers, optional
            The eigenvalues, none negative, in any order; default ``logspace(0, -2, n)``.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype

        Raises
        ------
        ValueError
            Fewer rows than columns, or a spectrum that no second-moment matrix has.

        Examples
        --------
        >>> problem = SampledPCA.random(100, 4, 2, spectrum=[4, 3, 2, 1], rng=0)
        >>> round(problem.optimum()[1], 12)
        -3.5
        """
        check_count("n", n)
        if check_count("n_terms", n_terms) < n:
            raise ValueError(
                f"n_terms = {n_terms} rows are too few for n = {n} eigenvalues; n_terms >= n is needed."
            )
        spectrum = np.logspace(0.0, -2.0, n) if spectrum is None else spectrum
        values = _common.check_spectrum(spectrum, n)
        if values.min() < 0.0:
            raise ValueError(
                f"spectrum has the eigenvalue {values.min():g}; those of a second-moment matrix are not "
                "negative (PCA.from_covariance takes any)."
            )
        wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
        generator = np.random.default_rng(rng)
        Q = stiefel.random(n_terms, n, rng=generator, dtype=wide)
        V = stiefel.random(n, rng=generator, dtype=wide)
        data = (Q * np.sqrt(n_terms * values)) @ V.conj().T
        return cls(data.astype(dtype), p)

    def __repr__(self) -> str:
        return super().__repr__().replace("LinearModelSum", "SampledPCA")

    def hessp(self, x: Array, v: Array) -> Array:  # type: ignore[override]
        """The Hessian applied to v, -K v; the same at every x."""
        return self.grad(v)  # the gradient is linear

    def optimum(self, component: Any = None) -> tuple[Array, Any]:
        """The p leading eigenvectors of K, largest eigenvalue first, and the value there.

        K is accumulated in one pass over the rows and has n^2 numbers. The minimiser is unique up to a
        rotation of its columns.

        Parameters
        ----------
        component : {None, +1, -1}
            Sign of det x, for real square matrices; None: as it comes.

        Returns
        -------
        (x, fun)

        Raises
        ------
        ValueError
            n > 20000, or a component where the manifold is connected, or other than +1 and -1.

        Notes
        -----
        Cost: N n^2 multiplications and one symmetric eigenvalue problem of size n.
        """
        _common.component_signs(component, self.shape, self.like)  # refuses before the work
        n, p = self.shape
        if n > _LARGEST:
            raise ValueError(
                f"the second-moment matrix of n = {n} columns is too large (at most {_LARGEST}); solve "
                "it instead, e.g. with lo.minimize(problem, method=lo.landing_svrg())."
            )
        size = max(self.chunk_terms, n)  # the rows take no more than K itself
        K: Any = None
        for start in range(0, self.n_terms, size):
            rows = self.rows(slice(start, min(start + size, self.n_terms)))
            piece = _xp.H(rows) @ rows
            K = piece if K is None else K + piece
        x, _ = PCA.from_covariance(K * (1.0 / self.n_terms), p).optimum(component)
        return x, self._fun(x)


def online_pca(
    p: int,
    n: int = 5000,
    n_terms: int = 15_000,
    *,
    noise: float = 0.1,
    rng: Any = None,
    dtype: Any = np.float32,
) -> SampledPCA:
    r"""The online PCA instance of [AVGA24]: p strong directions of equal columns, and noise.

    The data is A = standardised(U diag(s) V^T) + noise E, with s = ``linspace(1, 0.5, p)``, U (N, p)
    and V (n, p) with orthonormal columns drawn uniformly, and E standard normal. *Standardised* means:
    every column of U diag(s) V^T is shifted to mean 0 and scaled to variance 1 (mean square, over
    the N rows), before the noise. So the columns of A have variance 1 + noise^2, the trace of its
    second-moment matrix K is n (1 + noise^2), of which p directions hold nearly all, and the
    eigenvalues of K in them are of the order of n / p (the scaling of the columns mixes s).

    Parameters
    ----------
    p : int
        Components, 1 <= p <= n and p < N; 100, 200, 500 and 1000 in the paper.
    n : int
        Columns of the data, 5000 in the paper.
    n_terms : int
        N, rows of the data, 15000 in the paper.
    noise : float
        Standard deviation of the noise, 0.1 in the paper.
    rng : numpy.random.Generator or seed, optional
    dtype : NumPy dtype
        float32 in the paper.

    Returns
    -------
    SampledPCA
        f(X) = -||A_b X||^2 / (2 b) over b rows.

    Raises
    ------
    TypeError, ValueError
        Sizes that do not go together; noise that is negative or not finite.

    Notes
    -----
    At the default size the data takes 300 000 000 bytes (N n numbers of 4 bytes), and making it, for
    p = 100, 90 MB more. In the paper: 60 epochs of batches of 128 rows, step 1e-3 divided by 10 at
    epochs 30 and 50, lam = 10.

    References
    ----------
    [AVGA24] (experiments; the recipe as in the authors' code, whose variances divide by N - 1).

    Examples
    --------
    >>> problem = online_pca(3, n=20, n_terms=500, rng=0)
    >>> problem
    SampledPCA(n_terms=500, n=20, p=3, float32)
    >>> bool(abs(problem.data.var(axis=0) - 1.01).max() < 0.05)
    True
    """
    check_count("n", n)
    _common.check_columns(p, n, "p")
    if not p < check_count("n_terms", n_terms):
        raise ValueError(
            f"p = {p} directions need more than n_terms = {n_terms} rows: the mean takes one."
        )
    real = isinstance(noise, numbers.Real) and not isinstance(noise, bool)
    if not (real and 0.0 <= noise < math.inf):
        raise ValueError(f"noise must be a standard deviation, not negative, got {noise!r}.")
    level = float(noise)
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    generator = np.random.default_rng(rng)
    left = stiefel.random(n_terms, p, rng=generator, dtype=wide)
    right = stiefel.random(n, p, rng=generator, dtype=wide)
    left *= np.linspace(1.0, 0.5, p)
    # Mean and variance of the columns of left right^H, without that matrix in double precision.
    left -= left.mean(axis=0)
    moments = left.conj().T @ left / n_terms
    variances = np.vecdot(right, right @ moments).real
    right /= np.sqrt(variances)[:, None]
    data = left.astype(dtype) @ right.astype(dtype).conj().T
    rows = max(1, _NOISE // n)
    for start in range(0, n_terms, rows):
        piece = data[start : start + rows]
        piece += level * _common.gaussian(generator, piece.shape, dtype)
    return SampledPCA(data, p)


def stream_pca(
    batches: Iterable[Array] | Callable[[], Iterable[Array]],
    n: int,
    p: int,
    *,
    like: Array | None = None,
) -> Stream:
    r"""Principal components of rows that arrive once, min E :math:`-\|B X\|_F^2 / (2 b)`.

    Parameters
    ----------
    batches : iterable of arrays (b, n), or a function that returns one
        Each batch gives one step, and is then forgotten; b may differ from one to the next. Slices of a
        file: ``(file[i : i + 100] for i in range(0, len(file), 100))``.
    n, p : int
        Columns of the batches, and components, 1 <= p <= n.
    like : array, optional
        Library, dtype and device of the variable, those of the batches; NumPy's float64 by default.

    Returns
    -------
    Stream
        For :func:`landingopt.landing_sgd` with a step: no row is seen twice to measure a curvature.

    Raises
    ------
    TypeError, ValueError
        Sizes that do not go together; in a run, a batch that is not a matrix with n columns, or of
        another dtype than the variable.

    See Also
    --------
    SampledPCA : rows that can be read again.

    Notes
    -----
    Cost of a step: two products of b n p multiplications.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> rng = np.random.default_rng(0)
    >>> scales = np.array([3.0, 2.0, 1.0, 0.5])
    >>> problem = stream_pca((rng.standard_normal((50, 4)) * scales for _ in range(400)), n=4, p=2)
    >>> result = lo.minimize(problem, method=lo.landing_sgd(step=0.02), rng=0)
    >>> result.status.name, bool(np.linalg.norm(result.feasible_x[:2]) ** 2 > 1.95)
    ('STREAM_ENDED', True)
    """
    shape = (check_count("n", n), _common.check_columns(p, n, "p"))
    return Stream(_batch_value, _batch_gradient, batches=batches, shape=shape, like=like)


# Functions of the module can be pickled, and the problems that are made of them.


def _half_squares(scores: Array, terms: Terms) -> Array:
    """-|u|^2 / 2 for each row u."""
    xp = _xp.namespace(scores)
    squares = xp.vecdot(scores, scores)
    return (xp.real(squares) if _xp.is_complex(scores) else squares) * -0.5


def _negative(scores: Array, terms: Terms) -> Array:
    return -scores


def _batch_value(x: Array, batch: Array) -> Any:
    scores = _scores(x, batch)
    return _common.inner(_xp.namespace(scores), scores, scores) * (-0.5 / batch.shape[0])


def _batch_gradient(x: Array, batch: Array) -> Array:
    scores = _scores(x, batch)
    return (_xp.H(batch) @ scores) * (-1.0 / batch.shape[0])


def _scores(x: Array, batch: Array) -> Array:
    n = x.shape[0]
    shape = tuple(getattr(batch, "shape", ()))
    if len(shape) != 2 or shape[1] != n or not shape[0]:
        what = f"shape {shape}" if shape else f"type {type(batch).__name__}"
        raise ValueError(
            f"a batch of the stream has {what}; an array (b, {n}) of rows, b >= 1, is needed."
        )
    if batch.dtype != x.dtype:
        raise TypeError(
            f"a batch of the stream has dtype {_xp.dtype_name(batch)}, the variable has "
            f"{_xp.dtype_name(x)}; cast the batches, or pass like=, an array of their dtype."
        )
    return batch @ x
