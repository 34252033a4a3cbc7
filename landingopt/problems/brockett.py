"""The Brockett function: eigenvectors, each in a column of its own."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common


class Brockett:
    r"""Brockett function, min :math:`\mathrm{Re}\,\mathrm{tr}(X^H K X W)` over :math:`X^H X = I`.

    W = diag(weights). There is NO factor 1/2, unlike :class:`PCA`: the gradient is 2 K X W and the
    Hessian V -> 2 K V W. With distinct weights other than zero the columns of the minimiser are
    eigenvectors of K one by one, not only a basis of an invariant subspace.

    Parameters
    ----------
    K : array (..., n, n)
        Hermitian, float32 or float64 precision. Leading axes make a stack of independent problems.
    weights : array (p,) or sequence of p numbers
        Real, of any sign, distinct or not, the same for every matrix of a stack; 1 <= p <= n. An
        array must be of the library, device and (real) precision of ``K``.

    Attributes
    ----------
    shape : tuple
        (..., n, p), the shape of the variable X.
    constraint : Stiefel
    like : array
        ``K``: library, dtype and device of the variable.

    Raises
    ------
    TypeError
        Not arrays, not floating point, or of different libraries or dtypes.
    ValueError
        K not square, not Hermitian or not finite; weights that are not one axis of 1..n finite
        numbers, or on another device.

    Notes
    -----
    References to ``K`` and ``weights`` are kept and never written to; leave them unchanged. An
    evaluation of value and gradient is one product of n^2 p multiplications.

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack.

    References
    ----------
    [AMS08], section 4.8.

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import Brockett
    >>> problem = Brockett(np.diag([1.0, 2.0, 5.0]), weights=[3.0, -1.0])
    >>> problem
    Brockett(n=3, p=2, float64)
    >>> problem.fun(np.eye(3)[:, :2])
    1.0
    >>> x, fun = problem.optimum()  # weight 3 takes the eigenvalue 1, weight -1 the eigenvalue 5
    >>> fun
    -2.0
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, K: Array, weights: Any):
        xp = _common.check_data(K=K)
        _common.check_hermitian(xp, K, "K")
        self.K = K
        self.weights = _check_weights(xp, K, weights)
        self.like = K
        self.shape: tuple[int, ...] = (*K.shape[:-1], self.weights.shape[0])
        self._twice_weights = 2.0 * self.weights

    @classmethod
    def random(
        cls,
        n: int,
        p: int,
        *,
        spectrum: Any = None,
        weights: Any = None,
        rng: Any = None,
        dtype: Any = np.float64,
    ) -> Brockett:
        """An instance K = Q diag(spectrum) Q^H with eigenvectors Q drawn uniformly.

        Parameters
        ----------
        n, p : int
            Rows and columns of X.
        spectrum : sequence of n numbers, optional
            The eigenvalues, in any order; default ``linspace(1, 0.1, n)``.
        weights : sequence of p numbers, optional
            Default ``p, ..., 2, 1``.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype

        Examples
        --------
        >>> problem = Brockett.random(4, 2, spectrum=[4, 3, 2, 1], rng=0)
        >>> round(problem.optimum()[1], 12)  # 2 * 1 + 1 * 2
        4.0
        """
        spectrum = np.linspace(1.0, 0.1, n) if spectrum is None else spectrum
        values = _common.check_spectrum(spectrum, n)
        K = _common.hermitian_with_spectrum(values, np.random.default_rng(rng), dtype)
        return cls(K, list(range(p, 0, -1)) if weights is None else weights)

    def __repr__(self) -> str:
        n, p = self.shape[-2:]
        return _common.describe("Brockett", self.shape[:-2], self.like, 1.0, n=n, p=p)

    def fun(self, x: Array) -> Any:
        """The objective Re tr(x^H K x W), one value per matrix."""
        return self.value_and_gradient(x)[0]

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient 2 K x W."""
        gradient = self.K @ x
        gradient *= self._twice_weights
        return gradient

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from one product with K."""
        gradient = self.grad(x)
        # f is quadratic and homogeneous: f = <x, grad f> / 2.
        return 0.5 * _common.inner(self._xp, x, gradient), gradient

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, 2 K v W; the same at every x."""
        return self.grad(v)  # the gradient is linear

    def optimum(self, component: Any = None) -> tuple[Array, Any]:
        """Eigenvectors of K in the order that the weights ask for, and the value there.

        The objective is sum_j w_j x_j^H K x_j. With n - p zero weights added it is the trace of K
        times a Hermitian matrix of given eigenvalues, which is least where the largest weight meets
        the smallest eigenvalue, and so on down (von Neumann). The zeros stand between the positive
        and the negative weights: positive weights, largest first, take the smallest eigenvalues,
        negative weights, most negative first, the largest.

        Parameters
        ----------
        component : {None, +1, -1} or integer array of the stack's shape
            Sign of det x, for real square matrices, where both components have the same minimum
            (the sign of a column is free); None: as it comes.

        Returns
        -------
        (x, fun)

        Raises
        ------
        ValueError
            A component where the manifold is connected, or other than +1 and -1.
        """
        xp = self._xp
        n, p = self.shape[-2:]
        signs = _common.component_signs(component, self.shape, self.like)
        weights = _xp.to_host(self.weights)
        descending = np.argsort(-weights, kind="stable")
        columns = np.empty(p, dtype=np.int64)
        for rank, j in enumerate(descending):
            columns[j] = rank if weights[j] >= 0 else n - p + rank
        _, vectors = xp.linalg.eigh(self.K)  # eigenvalues ascend
        x = xp.stack([vectors[..., int(column)] for column in columns], axis=-1)
        x = _common.into_component(xp, x, signs)
        return x, self.fun(x)


def _check_weights(xp: ModuleType, K: Array, weights: Any) -> Array:
    """The weights as an array of K's library, device and real precision."""
    real = xp.real(K).dtype if _xp.is_complex(K) else K.dtype
    if isinstance(weights, (list, tuple, range)):
        try:
            values = np.asarray([float(w) for w in weights])
        except (TypeError, ValueError):
            raise TypeError(f"weights must be real numbers, got {weights!r}.") from None
        device = None if xp is np else _xp.device_of(K)
        # Through Python floats: a device without float64 takes these as well.
        weights = xp.asarray(values.tolist(), dtype=real, device=device)
    try:
        space = _xp.namespace(weights)
    except TypeError as error:
        raise TypeError(f"weights: {error}") from None
    if space is not xp:
        raise TypeError(
            f"K and weights come from different array libraries ({type(K).__module__} and "
            f"{type(weights).__module__}); convert one of them."
        )
    if weights.dtype != real:
        name = _xp.dtype_name(xp.real(K) if _xp.is_complex(K) else K)
        raise TypeError(
            f"K has dtype {_xp.dtype_name(K)} and weights {_xp.dtype_name(weights)}; real weights "
            f"of the same precision are needed: cast them, e.g. weights.astype('{name}')."
        )
    if _xp.device_of(weights) != _xp.device_of(K):
        raise ValueError(
            f"K and weights are on devices {_xp.device_of(K)} and {_xp.device_of(weights)}; move "
            "one of them."
        )
    n = K.shape[-1]
    if weights.ndim != 1 or not 1 <= weights.shape[0] <= n:
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}; p weights, 1 <= p <= n = {n}, are needed."
        )
    if not _xp.all_finite(weights):
        raise ValueError("weights has entries that are NaN or infinite; finite weights are needed.")
    return weights
