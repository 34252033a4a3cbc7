"""Independent component analysis: the rotation of whitened data with the most peaked components."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common
from landingopt.samplers import Terms
from landingopt.sums import LinearModelSum

_CHUNK_BYTES = 1 << 17  # of the scores that are worked on at a time: they stay in the cache
_FACTORS = 64  # numbers in [1, 2] multiplied before the logarithm: 2^64 is a float32


class ICA:
    r"""Independent component analysis, min :math:`\frac1N \sum_{ij} \log\cosh\,(A X)_{ij}`.

    A is the (N, n) data, a sample a row, and X^T X = I. For whitened data (:func:`whiten`) the
    minimiser finds super-Gaussian sources, those more peaked than a Gaussian: sounds, images. With
    T = tanh(A X) the gradient is A^T T / N and the Hessian V -> A^T ((1 - T^2) * (A V)) / N, where
    * multiplies entry by entry.

    Parameters
    ----------
    data : array (N, n)
        Real, float32 or float64 precision. It is NOT whitened here, nor is that checked.
    p : int, optional
        The number of components sought, between 1 and n; default n.

    Attributes
    ----------
    shape : tuple
        (n, p), the shape of the variable X.
    constraint : Stiefel
    like : array
        ``data``: library, dtype and device of the variable.
    data : array (N, n)
    n_terms : int
        N: f is the mean of that many terms, one a row of the data. ``fun_terms``, ``grad_terms``,
        ``rows`` and ``slopes`` give the stochastic methods some of them.
    chunk_terms : int
        Rows that those methods work on at a time where they pass over all of the data.
    mixing : numpy.ndarray (n, n) or None
        What :meth:`random` mixed the sources with, as seen in the whitened data: row a of the data
        is ``mixing`` times the sources of that sample. None for data of your own.

    Raises
    ------
    TypeError
        Not an array, not floating point, complex, or a p that is not an integer.
    ValueError
        Not one matrix (a stack is refused: the rows of one data set are the terms), empty or
        non-finite data, a p outside 1..n.

    See Also
    --------
    whiten, amari_distance
    landingopt.landing_saga, landingopt.landing_svrg : some rows at a time.

    Notes
    -----
    A reference to ``data`` is kept and never written to; leave it unchanged.

    Cost: ``fun`` is one product of N n p multiplications and N p hyperbolic tangents,
    ``value_and_gradient`` two products and the same tangents: with t = tanh u,

    .. math:: \log\cosh u = |u| - \log(1 + |t|),

    which cancels nothing and does not overflow, and the logarithms are taken of products of 64
    factors. NumPy data is worked on in pieces that stay in the cache. ``hessp`` is two products;
    the tangents, and the product they come from, are computed anew only where x has other entries
    than in the call before (one array (N, p) and a copy of x are kept for that, NumPy only).

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack of points.

    References
    ----------
    [AVGA24] (experiments); A. Hyvärinen, Fast and robust fixed-point algorithms for independent
    component analysis, IEEE Transactions on Neural Networks 10 (1999): the log cosh contrast.

    Examples
    --------
    >>> import numpy as np
    >>> import landingopt as lo
    >>> from landingopt.problems import ICA, amari_distance
    >>> problem = ICA.random(4, 2000, rng=0)
    >>> problem
    ICA(n=4, p=4, samples=2000, float64)
    >>> result = lo.minimize(problem, rng=0)
    >>> amari_distance(result.x.T, problem.mixing) < 0.05
    True

    A few rows a step:

    >>> lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, rng=0).success
    True
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, data: Array, *, p: int | None = None):
        _check_samples(data)
        n = data.shape[1]
        self.data = data
        self.like = data
        self.n_terms: int = data.shape[0]
        self.shape: tuple[int, int] = (n, n if p is None else _common.check_columns(p, n, "p"))
        self._sum = LinearModelSum(_log_cosh, _tangents, data, p=self.shape[1])
        self.chunk_terms = self._sum.chunk_terms
        self.mixing: np.ndarray | None = None
        self._spare: list[np.ndarray] = []
        self._curvature: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def random(
        cls, n: int, n_samples: int = 10_000, *, rng: Any = None, dtype: Any = np.float64
    ) -> ICA:
        """An instance with independent Laplace sources, mixed by a Gaussian matrix and whitened.

        The setting of [AVGA24]: 10 000 samples of 10 sources.

        Parameters
        ----------
        n : int
            Sources, and columns of the data.
        n_samples : int
            N > n, rows of the data.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype
            A real one; float32 data is the float64 draw, rounded.

        Examples
        --------
        >>> problem = ICA.random(3, 500, rng=0)
        >>> problem.data.shape, problem.mixing.shape
        ((500, 3), (3, 3))
        >>> np.allclose(problem.data.T @ problem.data / 500, np.eye(3))
        True
        """
        rng = np.random.default_rng(rng)
        sources = rng.laplace(size=(n_samples, n))
        mixing = rng.standard_normal((n, n))
        data, matrix = whiten(sources @ mixing.T)
        problem = cls(data.astype(dtype))
        problem.mixing = matrix.T @ mixing
        return problem

    @classmethod
    def digits(cls, p: int = 40, *, dtype: Any = np.float64) -> ICA:
        """The handwritten digits of scikit-learn, reduced to p principal components and whitened.

        1797 samples of p numbers; X is (p, p). Needs scikit-learn.

        Parameters
        ----------
        p : int
            Principal components kept, at most 61: three of the 64 pixels are always white.
        dtype : NumPy dtype
            A real one.

        Raises
        ------
        ImportError
            scikit-learn is not installed.
        ValueError
            p outside 1..61.

        Examples
        --------
        >>> ICA.digits()
        ICA(n=40, p=40, samples=1797, float64)
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                'ICA.digits needs scikit-learn: pip install "landingopt[examples]"'
            ) from error
        pixels = np.asarray(load_digits().data, dtype=np.float64)
        return cls(whiten(pixels, p)[0].astype(dtype))

    def __repr__(self) -> str:
        n, p = self.shape
        return _common.describe("ICA", (), self.like, 1.0, n=n, p=p, samples=self.n_terms)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spare": [], "_curvature": None}

    def fun(self, x: Array) -> Any:
        """The objective, the mean over the samples of sum_j log cosh(a_i^T x_j)."""
        if not self._in_pieces(x):
            scores = self.data @ x
            return self._mean_log_cosh(scores, self._xp.tanh(scores))
        total = 0.0
        work = self._take(x)
        for rows, scores, _ in self._pieces(work):
            np.matmul(rows, x, out=scores)
            np.abs(scores, out=scores)
            total += float(scores.sum())
            np.tanh(scores, out=scores)
            total -= _sum_log1p(scores)
        self._spare.append(work)
        return total / self.n_terms

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient A^T tanh(A x) / N."""
        if not self._in_pieces(x):
            return _xp.H(self.data) @ self._xp.tanh(self.data @ x) * (1.0 / self.n_terms)
        gradient = np.zeros(self.shape, dtype=x.dtype)
        work = self._take(x)
        for rows, scores, _ in self._pieces(work):
            np.matmul(rows, x, out=scores)
            np.tanh(scores, out=scores)
            gradient += rows.T @ scores
        self._spare.append(work)
        gradient *= 1.0 / self.n_terms
        return gradient

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from the same tangents."""
        if not self._in_pieces(x):
            scores = self.data @ x
            tangents = self._xp.tanh(scores)
            gradient = _xp.H(self.data) @ tangents * (1.0 / self.n_terms)
            return self._mean_log_cosh(scores, tangents), gradient
        total = 0.0
        gradient = np.zeros(self.shape, dtype=x.dtype)
        work = self._take(x)
        for rows, scores, tangents in self._pieces(work):
            np.matmul(rows, x, out=scores)
            np.tanh(scores, out=tangents)
            gradient += rows.T @ tangents
            np.abs(scores, out=scores)
            total += float(scores.sum())
            np.abs(tangents, out=scores)
            total -= _sum_log1p(scores)
        self._spare.append(work)
        gradient *= 1.0 / self.n_terms
        return total / self.n_terms, gradient

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, A^T ((1 - tanh(A x)^2) * (A v)) / N."""
        if not (self._in_pieces(x) and self._in_pieces(v)):
            tangents = self._xp.tanh(self.data @ x)
            weighted = (1.0 - tangents * tangents) * (self.data @ v)
            return _xp.H(self.data) @ weighted * (1.0 / self.n_terms)
        curvature = self._curvature_at(x)
        product = np.zeros(self.shape, dtype=x.dtype)
        work = self._take(x)
        start = 0
        for rows, scores, _ in self._pieces(work):
            np.matmul(rows, v, out=scores)
            scores *= curvature[start : start + len(rows)]
            product += rows.T @ scores
            start += len(rows)
        self._spare.append(work)
        product *= 1.0 / self.n_terms
        return product

    def _curvature_at(self, x: np.ndarray) -> np.ndarray:
        """1 - tanh(A x)^2: that of the last call where x has the same entries, else computed."""
        # Entries are compared with a copy of our own: the memory of x may hold another point now.
        last = self._curvature
        if last is not None and np.array_equal(last[0], x):
            return last[1]
        curvature = self.data @ x
        np.tanh(curvature, out=curvature)
        np.square(curvature, out=curvature)
        np.subtract(1.0, curvature, out=curvature)
        self._curvature = (x.copy(), curvature)
        return curvature

    def _mean_log_cosh(self, scores: Array, tangents: Array) -> Any:
        xp = self._xp
        terms = xp.abs(scores) - xp.log1p(xp.abs(tangents))
        value = xp.sum(terms, axis=(-2, -1)) * (1.0 / self.n_terms)
        return float(value) if xp is np and value.ndim == 0 else value

    # -- some terms -----------------------------------------------------------------------------

    def fun_terms(self, x: Array, terms: Terms) -> Any:
        """The mean over some samples, a slice or an array of indices."""
        return self._sum.fun_terms(x, terms)

    def grad_terms(self, x: Array, terms: Terms) -> Array:
        """The mean gradient over some samples, A_b^T tanh(A_b x) / b."""
        return self._sum.grad_terms(x, terms)

    def rows(self, terms: Terms) -> Array:
        """Some samples."""
        return self._sum.rows(terms)

    def slopes(self, u: Array, terms: Terms) -> Array:
        """The gradient of each term with respect to its scores u, tanh u."""
        return self._sum.slopes(u, terms)

    # -- pieces of NumPy data -------------------------------------------------------------------

    def _in_pieces(self, x: Array) -> bool:
        return (
            isinstance(x, np.ndarray)
            and isinstance(self.data, np.ndarray)
            and x.shape == self.shape
            and x.dtype == self.data.dtype
        )

    def _take(self, x: np.ndarray) -> np.ndarray:
        """Memory for two arrays of scores; off the list while in use: no two threads share one."""
        try:
            return self._spare.pop()
        except IndexError:
            p = self.shape[1]
            rows = max(1, min(self.n_terms, _CHUNK_BYTES // (p * x.dtype.itemsize)))
            return np.empty((2, rows, p), dtype=x.dtype)

    def _pieces(self, work: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Rows of the data, with memory for their scores and for as many numbers beside."""
        size = work.shape[1]
        for start in range(0, self.n_terms, size):
            rows = self.data[start : start + size]
            yield rows, work[0, : len(rows)], work[1, : len(rows)]


def _log_cosh(scores: Array, terms: Terms) -> Array:
    """One value for each row of scores; as a function of the module it can be pickled."""
    xp = _xp.namespace(scores)
    return xp.sum(xp.abs(scores) - xp.log1p(xp.abs(xp.tanh(scores))), axis=1)


def _tangents(scores: Array, terms: Terms) -> Array:
    return _xp.namespace(scores).tanh(scores)


def _sum_log1p(values: np.ndarray) -> float:
    """The sum of log(1 + v) over contiguous values in [0, 1], which are overwritten.

    Logarithms of products: 1 + v is at most 2, so that 64 factors neither overflow nor lose digits.
    """
    values += 1.0
    flat = values.reshape(-1)
    columns = flat.size // _FACTORS
    products = np.multiply.reduce(flat[: _FACTORS * columns].reshape(_FACTORS, columns), axis=0)
    rest = np.multiply.reduce(flat[_FACTORS * columns :])
    return float(np.log(products).sum()) + math.log(rest)


def _check_samples(data: Array) -> Any:
    xp = _common.check_data(data=data)
    if _xp.is_complex(data):
        raise TypeError(f"data has dtype {_xp.dtype_name(data)}; real data is needed.")
    if data.ndim != 2:
        raise ValueError(
            f"data has shape {tuple(data.shape)}; one matrix (N, n), a sample a row, is needed: "
            "data sets of a stack are problems of their own."
        )
    return xp


def whiten(data: Array, n_components: int | None = None) -> tuple[Array, Array]:
    r"""Centre the data and map it to uncorrelated columns of variance 1.

    With the singular value decomposition D - mean = U S V^T, the matrix is
    :math:`W = \sqrt{N}\, V S^{-1}`, its leading columns only where fewer components are asked for,
    and the whitened data (D - mean) W.

    Parameters
    ----------
    data : array (N, n)
        Real, float32 or float64 precision, a sample a row; of any array library.
    n_components : int, optional
        p, between 1 and n: the leading principal components to keep; default n.

    Returns
    -------
    whitened : array (N, p)
        Columns of mean 0, with whitened^T whitened = N I.
    matrix : array (n, p)
        W, which maps the centred rows: whitened = (data - mean) @ matrix.

    Raises
    ------
    TypeError
        Not an array, not floating point, complex, or a number that is not an integer.
    ValueError
        Not one matrix, empty or non-finite, n_components outside 1..n, or beyond the rank of the
        centred data.

    Notes
    -----
    Cost: one singular value decomposition of N n^2 multiplications and one product of N n p.

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import whiten
    >>> data = np.random.default_rng(0).laplace(size=(100, 3)) @ np.diag([1.0, 5.0, 0.2])
    >>> whitened, matrix = whiten(data, 2)
    >>> np.allclose(whitened.T @ whitened / 100, np.eye(2))
    True
    >>> np.allclose((data - data.mean(axis=0)) @ matrix, whitened)
    True
    """
    xp = _check_samples(data)
    samples, n = data.shape
    p = n if n_components is None else _common.check_columns(n_components, n, "n_components")
    centred = data - xp.mean(data, axis=0, keepdims=True)
    _, scales, right = xp.linalg.svd(centred, full_matrices=False)
    sizes = _xp.to_host(scales)
    noise = max(samples, n) * _xp.unit_roundoff(data) * float(_xp.to_host(xp.max(xp.abs(data))))
    # Centring leaves rounding of the size of the data, not only of what remains of it.
    floor = max(noise, max(samples, n) * _xp.unit_roundoff(data) * float(sizes[0]))
    rank = int((sizes > floor).sum())
    if p > rank:
        raise ValueError(
            f"{p} components are asked for, but the centred data of shape {tuple(data.shape)} has "
            f"rank {rank}; pass n_components={rank} or less."
            if rank
            else f"every row of the data of shape {tuple(data.shape)} is the same; nothing to whiten."
        )
    matrix = _xp.H(right)[:, :p] * (math.sqrt(samples) / scales[:p])
    return centred @ matrix, matrix


def amari_distance(unmixing: Any, mixing: Any) -> float:
    r"""How far unmixing times mixing is from a scaled permutation (Amari, Cichocki and Yang).

    With P = unmixing @ mixing, of size n,

    .. math::

        \frac{1}{2 n (n - 1)} \Big[ \sum_i \Big( \sum_j \frac{|P_{ij}|}{\max_k |P_{ik}|} - 1 \Big)
        + \sum_j \Big( \sum_i \frac{|P_{ij}|}{\max_k |P_{kj}|} - 1 \Big) \Big] ,

    which is 0 iff every source is found, up to order, sign and scale, and at most 1, for entries
    that are all of one size. (It is 0 for n = 1.)

    Parameters
    ----------
    unmixing : array (n, m)
        What estimates the sources: X^T for a solution X of :class:`ICA`, applied to a sample.
    mixing : array (m, n)
        What mixed them, for instance ``ICA.random(...).mixing``. Any array library; real or
        complex. Arrays are read on the host.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        Shapes whose product is not a square matrix, entries that are not finite, or a row or column
        of P that is zero (a source that is not there cannot be found).

    Notes
    -----
    Multiplying the rows of ``unmixing`` by numbers changes the second sum: compare solutions of the
    same normalization.

    References
    ----------
    S. Amari, A. Cichocki, H. H. Yang, A new learning algorithm for blind signal separation, NIPS 8
    (1995); divided here by its largest value.

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import amari_distance
    >>> mixing = np.array([[2.0, 1.0], [1.0, 1.0]])
    >>> amari_distance([[0.0, 3.0], [-1.0, 0.0]] @ np.linalg.inv(mixing), mixing)
    0.0
    >>> amari_distance(np.eye(2), np.ones((2, 2)))
    1.0
    """
    left, right = (
        np.asarray(_xp.to_host(m) if hasattr(m, "shape") else m) for m in (unmixing, mixing)
    )
    if (
        left.ndim != 2
        or right.ndim != 2
        or left.shape[1] != right.shape[0]
        or left.shape[0] != right.shape[1]
    ):
        raise ValueError(
            f"unmixing has shape {left.shape} and mixing {right.shape}; (n, m) and (m, n) are "
            "needed, so that their product is square."
        )
    sizes = np.abs(left @ right).astype(np.float64)
    if not np.isfinite(sizes).all():
        raise ValueError("unmixing @ mixing has entries that are NaN or infinite.")
    rows, columns = sizes.max(axis=1), sizes.max(axis=0)
    if not (rows.all() and columns.all()):
        raise ValueError(
            "unmixing @ mixing has a row or a column of zeros; a matrix with a source in every row "
            "and column is needed."
        )
    n = sizes.shape[0]
    if n == 1:
        return 0.0
    excess = (sizes / rows[:, None]).sum() + (sizes / columns).sum() - 2 * n
    return float(excess / (2 * n * (n - 1)))
