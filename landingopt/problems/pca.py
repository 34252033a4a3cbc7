"""Principal components as optimization over matrices with orthonormal columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common


class PCA:
    r"""Principal component analysis, min :math:`-\|D X\|_F^2 / (2 N)` over :math:`X^H X = I`.

    D is the (N, n) data, a sample a row; with the second-moment matrix K = D^H D / N the objective
    is -Re tr(X^H K X) / 2, its gradient -K X and its Hessian V -> -K V. The minimum is minus half
    the sum of the p largest eigenvalues of K.

    Parameters
    ----------
    data : array (..., N, n)
        Real or complex, float32 or float64 precision. It is NOT centred here: subtract the mean of
        the rows first, or K is not the covariance. Leading axes make a stack of independent
        problems.
    n_components : int
        p, between 1 and n.

    Attributes
    ----------
    shape : tuple
        (..., n, p), the shape of the variable X.
    constraint : Stiefel
    like : array
        Library, dtype and device of the variable.

    Raises
    ------
    TypeError
        Not an array, not floating point, or a number of components that is not an integer.
    ValueError
        Empty or non-finite data, or a number of components outside 1..n.

    See Also
    --------
    PCA.from_covariance : from K instead of data.

    Notes
    -----
    For N > n, K is formed once and the data is let go; an evaluation of value and gradient is one
    product of n^2 p multiplications. Else the data is kept by reference (never written to; leave it
    unchanged) beside one scaled copy of its adjoint, and an evaluation is two products of N n p.

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack.

    References
    ----------
    [AVGA24] (online PCA, there with minibatches of the rows).

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import PCA
    >>> problem = PCA(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), n_components=1)
    >>> problem
    PCA(n=2, p=1, float64)
    >>> problem.fun(np.array([[0.0], [1.0]]))
    -0.25
    >>> x, fun = problem.optimum()
    >>> np.abs(x).ravel().tolist(), fun
    ([1.0, 0.0], -2.25)
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, data: Array, n_components: int):
        xp = _common.check_data(data=data)
        samples, n = data.shape[-2:]
        p = _common.check_columns(n_components, n, "n_components")
        if samples > n:
            covariance = _xp.H(data) @ data
            covariance *= 1.0 / samples
            self._set_up(xp, covariance, None, p)
        else:
            self._set_up(xp, None, data, p)

    @classmethod
    def from_covariance(cls, K: Array, n_components: int) -> PCA:
        """The problem min -Re tr(X^H K X) / 2 of a Hermitian matrix K (..., n, n).

        K is kept by reference, and need not be positive semi-definite.

        Raises
        ------
        TypeError, ValueError
            As for the class, and where K is not square or not Hermitian.

        Examples
        --------
        >>> x, fun = PCA.from_covariance(np.diag([1.0, 4.0, 2.0]), 2).optimum()
        >>> fun
        -3.0
        """
        xp = _common.check_data(K=K)
        _common.check_hermitian(xp, K, "K")
        problem = cls.__new__(cls)
        problem._set_up(
            xp, K, None, _common.check_columns(n_components, K.shape[-1], "n_components")
        )
        return problem

    @classmethod
    def random(
        cls,
        n: int,
        p: int,
        *,
        spectrum: Any = None,
        rng: Any = None,
        dtype: Any = np.float64,
    ) -> PCA:
        """An instance K = Q diag(spectrum) Q^H with eigenvectors Q drawn uniformly.

        Parameters
        ----------
        n, p : int
            Rows and columns of X.
        spectrum : sequence of n numbers, optional
            The eigenvalues, in any order; default ``linspace(1, 0.1, n)``.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype

        Examples
        --------
        >>> problem = PCA.random(5, 2, spectrum=[5, 4, 3, 2, 1], rng=0)
        >>> round(problem.optimum()[1], 12)
        -4.5
        """
        spectrum = np.linspace(1.0, 0.1, n) if spectrum is None else spectrum
        values = _common.check_spectrum(spectrum, n)
        K = _common.hermitian_with_spectrum(values, np.random.default_rng(rng), dtype)
        return cls.from_covariance(K, p)

    def _set_up(self, xp: Any, covariance: Any, data: Any, p: int) -> None:
        self._covariance, self._data = covariance, data
        self._adjoint = (
            None if data is None else _common.scaled_adjoint(xp, data, -1.0 / data.shape[-2])
        )
        self.like = data if covariance is None else covariance
        self.shape: tuple[int, ...] = (*self.like.shape[:-2], self.like.shape[-1], p)

    def __repr__(self) -> str:
        n, p = self.shape[-2:]
        return _common.describe("PCA", self.shape[:-2], self.like, 1.0, n=n, p=p)

    def fun(self, x: Array) -> Any:
        """The objective -Re tr(x^H K x) / 2, one value per matrix."""
        if self._data is None:
            return -0.5 * _common.inner(self._xp, x, self._covariance @ x)
        scores = self._data @ x
        return (-0.5 / self._data.shape[-2]) * _common.inner(self._xp, scores, scores)

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient -K x."""
        if self._adjoint is not None:
            return self._adjoint @ (self._data @ x)
        gradient = self._covariance @ x
        gradient *= -1.0
        return gradient

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from one product with K, or one with the data and one back."""
        if self._adjoint is not None:
            scores = self._data @ x
            value = (-0.5 / self._data.shape[-2]) * _common.inner(self._xp, scores, scores)
            return value, self._adjoint @ scores
        gradient = self._covariance @ x
        gradient *= -1.0
        # f is quadratic and homogeneous: f = <x, grad f> / 2.
        return 0.5 * _common.inner(self._xp, x, gradient), gradient

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, -K v; the same at every x."""
        return self.grad(v)  # the gradient is linear

    def optimum(self, component: Any = None) -> tuple[Array, Any]:
        """The p leading eigenvectors of K, largest eigenvalue first, and the value there.

        The minimiser is unique up to a rotation of its columns. For real square matrices (where f
        is constant) both components have it: a column is flipped as ``component`` asks.

        Parameters
        ----------
        component : {None, +1, -1} or integer array of the stack's shape
            Sign of det x, for real square matrices; None: as it comes.

        Returns
        -------
        (x, fun)

        Raises
        ------
        ValueError
            A component where the manifold is connected, or other than +1 and -1.
        """
        xp = self._xp
        signs = _common.component_signs(component, self.shape, self.like)
        K = self._covariance
        if self._adjoint is not None:
            K = -(self._adjoint @ self._data)
        _, vectors = xp.linalg.eigh(K)  # eigenvalues ascend
        x = xp.flip(vectors[..., -self.shape[-1] :], axis=-1)
        x = _common.into_component(xp, x, signs)
        return x, self.fun(x)
