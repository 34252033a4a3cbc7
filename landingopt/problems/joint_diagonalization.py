"""Joint diagonalization: one orthogonal basis in which several matrices are (nearly) diagonal."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common


class _Workspace(NamedTuple):
    rows: np.ndarray  # (n k, n): row (a, k) is row a of x^H C_k
    wide: np.ndarray  # the same memory as (n, k n)
    residuals: np.ndarray  # (n k, n)
    diagonals: np.ndarray  # (n, k), a view of the residuals


class JointDiagonalization:
    r"""Joint diagonalization, min :math:`\frac{w}{4} \sum_k \|\mathrm{off}(X^H C_k X)\|_F^2`.

    The minimum is over the orthogonal (complex: unitary) X; off(D) is D with a zero diagonal. With
    the residuals E_k = off(X^H C_k X) the gradient is

    .. math:: w \sum_k C_k X E_k

    and the Hessian V -> w sum_k (C_k V E_k + C_k X off(V^H C_k X + X^H C_k V)), at every matrix X,
    orthogonal or not. The residuals are formed explicitly, so values stay accurate where the
    optimum is zero, that is, where the C_k commute.

    Parameters
    ----------
    C : array (..., k, n, n)
        k Hermitian matrices, real or complex, float32 or float64 precision. Leading axes make a
        stack of independent problems, each with its own k matrices.
    weight : float
        The positive factor w, for tests of scale.

    Attributes
    ----------
    shape : tuple
        (..., n, n), the shape of the variable X.
    constraint : Stiefel
    like : array
        ``C``: library, dtype and device of the variable.
    basis : array (..., n, n) or None
        The basis that :meth:`random` has drawn; None for data of your own.

    Raises
    ------
    TypeError
        Not an array, or not floating point.
    ValueError
        Fewer than three axes, matrices that are not square or not Hermitian, empty or non-finite
        data, a weight that is not positive.

    See Also
    --------
    JointDiagonalization.random : matrices of a known basis, with noise or without.

    Notes
    -----
    A reference to ``C`` is kept and never written to; leave it unchanged. Beside it are stored a
    rearranged copy of C and, for one problem of NumPy arrays, a workspace of twice its size (four
    times once ``hessp`` has been called).

    Cost: the k matrices stand side by side, so that one product multiplies them all. ``fun`` is two
    products of k n^3 multiplications, ``value_and_gradient`` three, ``hessp`` seven.

    A permutation of the columns of X, or a sign (complex: a phase) for each, does not change f; for
    real matrices both components have the same minimum. f is not convex: a method may end in a
    local minimum.

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack.

    References
    ----------
    J.-F. Cardoso, A. Souloumiac, Jacobi angles for simultaneous diagonalization, SIAM Journal on
    Matrix Analysis and Applications 17 (1996): the criterion, minimised there by Jacobi rotations.

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import JointDiagonalization
    >>> C = np.array([[[2.0, 1.0], [1.0, 2.0]], [[0.0, 3.0], [3.0, 0.0]]])
    >>> problem = JointDiagonalization(C)
    >>> problem
    JointDiagonalization(n=2, count=2, float64)
    >>> problem.fun(np.eye(2))  # (1 + 1 + 9 + 9) / 4
    5.0
    >>> problem.fun(np.array([[1.0, 1.0], [1.0, -1.0]]))  # both matrices have these eigenvectors
    0.0
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, C: Array, *, weight: float = 1.0):
        xp = _common.check_data(C=C)
        if C.ndim < 3:
            raise ValueError(
                f"C has shape {tuple(C.shape)}; a set of matrices (k, n, n) is needed, for a single "
                "one C[None]."
            )
        _common.check_hermitian(xp, C, "C")
        self.C = C
        self.weight = _common.check_weight(weight)
        self.like = C
        *stack, k, n, _ = C.shape
        self.shape: tuple[int, ...] = (*stack, n, n)
        self.basis: Array | None = None
        self._commuting = False
        # Exactly Hermitian, or the gradient would be one of another function; with sqrt(w), so that
        # no evaluation multiplies by w.
        scaled = (C + _xp.H(C)) * (0.5 * math.sqrt(self.weight))
        # [C_1 ... C_k] of shape (n, k n): X^H times it, reshaped to (n k, n), has the rows of all
        # X^H C_k, which X multiplies at once; row (a, k) holds row a of X^H C_k.
        axes = (*range(len(stack)), -2, -3, -1)
        scaled = xp.permute_dims(scaled, tuple(axis % C.ndim for axis in axes))
        self._side_by_side = xp.reshape(scaled, (*stack, n, k * n))
        eye = xp.eye(n, dtype=C.dtype, device=None if xp is np else _xp.device_of(C))
        self._off = xp.reshape(1.0 - eye, (n, 1, n))
        self._spare: list[_Workspace] = []

    @classmethod
    def random(
        cls,
        n: int,
        *,
        count: int = 10,
        noise: float = 0.0,
        stack: tuple[int, ...] = (),
        rng: Any = None,
        dtype: Any = np.float64,
        weight: float = 1.0,
    ) -> JointDiagonalization:
        """An instance C_k = Q diag(d_k) Q^H + noise * S_k, with Q drawn uniformly, d_k Gaussian.

        Parameters
        ----------
        n : int
            Size of the matrices.
        count : int
            k, the number of matrices.
        noise : float
            Factor of the Hermitian Gaussian matrices S_k, whose entries off the diagonal have
            variance 1.
        stack : tuple of int
            Leading axes.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype
            float32 data is the float64 draw, rounded.
        weight : float
            As for the class.

        Raises
        ------
        ValueError
            Noise that is negative or not finite.

        Examples
        --------
        >>> problem = JointDiagonalization.random(4, count=3, rng=0)
        >>> x, fun = problem.optimum()
        >>> fun, problem.fun(x) < 1e-28
        (0.0, True)
        >>> JointDiagonalization.random(4, count=3, noise=0.1, rng=0).optimum() is None
        True
        """
        if not 0.0 <= noise < math.inf:
            raise ValueError(f"noise must be finite and not negative, got {noise}.")
        rng = np.random.default_rng(rng)
        wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
        # Before the basis: a solver's start of the same seed would be the solution.
        spectra = rng.standard_normal((*stack, count, n))
        Q, R = np.linalg.qr(_common.gaussian(rng, (*stack, n, n), wide))
        diagonal = np.einsum("...ii->...i", R)
        Q = Q * (diagonal / np.abs(diagonal))[..., None, :]  # without it Q is not uniform
        each = Q[..., None, :, :]
        C = (each * spectra[..., None, :]) @ _xp.H(each)
        if noise:
            C += (noise * math.sqrt(2.0)) * _common.gaussian(rng, C.shape, wide)
        C = (C + _xp.H(C)) * 0.5
        problem = cls(C.astype(dtype), weight=weight)
        problem.basis = Q.astype(dtype)
        problem._commuting = not noise
        return problem

    def __repr__(self) -> str:
        n, count = self.shape[-1], self.C.shape[-3]
        return _common.describe(
            "JointDiagonalization", self.shape[:-2], self.like, self.weight, n=n, count=count
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spare": []}

    def fun(self, x: Array) -> Any:
        """The objective w/4 sum_k ||off(x^H C_k x)||_F^2, one value per matrix."""
        work = self._take(x)
        _, residuals = self._residuals(x, work)
        value = 0.25 * _common.inner(self._xp, residuals, residuals)
        self._give_back(work)
        return value

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient w sum_k C_k x off(x^H C_k x)."""
        work = self._take(x)
        rows, residuals = self._residuals(x, work)
        gradient = _xp.H(rows) @ residuals
        self._give_back(work)
        return gradient

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from the same residuals."""
        work = self._take(x)
        rows, residuals = self._residuals(x, work)
        value = 0.25 * _common.inner(self._xp, residuals, residuals)
        gradient = _xp.H(rows) @ residuals
        self._give_back(work)
        return value, gradient

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, w sum_k (C_k v E_k + C_k x off(v^H C_k x + x^H C_k v))."""
        work, work_v = self._take(x), self._take(v)
        rows, residuals = self._residuals(x, work)
        rows_v = self._rows(v, work_v)
        product = _xp.H(rows_v) @ residuals
        if work is None or work_v is None:
            change = rows_v @ x
            change += rows @ v
        else:  # the residuals have been used
            change = np.matmul(rows_v, x, out=work_v.residuals)
            change += np.matmul(rows, v, out=work.residuals)
        product += _xp.H(rows) @ self._zero_diagonals(change, work_v)
        self._give_back(work)
        self._give_back(work_v)
        return product

    # -- the residuals --------------------------------------------------------------------------

    def _residuals(self, x: Array, work: _Workspace | None) -> tuple[Array, Array]:
        """The rows of all x^H C_k, and those of all off(x^H C_k x): (..., n k, n) each."""
        rows = self._rows(x, work)
        products = rows @ x if work is None else np.matmul(rows, x, out=work.residuals)
        return rows, self._zero_diagonals(products, work)

    def _rows(self, x: Array, work: _Workspace | None) -> Array:
        if work is not None:
            np.matmul(_xp.H(x), self._side_by_side, out=work.wide)
            return work.rows
        wide = _xp.H(x) @ self._side_by_side
        return self._xp.reshape(wide, (*wide.shape[:-2], -1, x.shape[-1]))

    def _zero_diagonals(self, rows: Array, work: _Workspace | None) -> Array:
        """off(.) of each matrix, in place; ``rows`` is work.residuals where there is a workspace."""
        if work is not None:
            work.diagonals[...] = 0.0
            return rows
        n = rows.shape[-1]
        matrices = self._xp.reshape(rows, (*rows.shape[:-2], n, -1, n))
        matrices *= self._off
        return self._xp.reshape(matrices, rows.shape)

    def _take(self, x: Array) -> _Workspace | None:
        """Memory for rows and residuals of one NumPy matrix; None where the plain way is taken.

        Large arrays that come and go cost page faults, more than the arithmetic at n = 50. A
        workspace is off the list while it is in use, so that two threads never share one.
        """
        C = self.C
        if not (
            isinstance(x, np.ndarray)
            and isinstance(C, np.ndarray)
            and x.ndim == 2
            and x.shape == self.shape
            and x.dtype == C.dtype
        ):
            return None
        try:
            return self._spare.pop()
        except IndexError:
            k, n = C.shape[:2]
            rows, residuals = np.empty((2, n * k, n), dtype=C.dtype)
            diagonals = np.einsum("iki->ik", residuals.reshape(n, k, n))  # a view
            return _Workspace(rows, rows.reshape(n, k * n), residuals, diagonals)

    def _give_back(self, work: _Workspace | None) -> None:
        if work is not None:
            self._spare.append(work)

    def optimum(self, component: Any = None) -> tuple[Array, Any] | None:
        """The basis and the value 0 of a random instance without noise.

        The columns may be permuted and multiplied by signs (complex: phases) at will. The value at
        the basis, ``fun(basis)``, is zero to the rounding of the data, squared.

        Parameters
        ----------
        component : {None, +1, -1} or integer array of the stack's shape
            Sign of det x, for real matrices, where both components have the same minimum (the
            sign of a column is free); None: as it comes.

        Returns
        -------
        (x, 0), or None for noisy data and for data of your own: no closed form is known.

        Raises
        ------
        ValueError
            A component where the manifold is connected, or other than +1 and -1.
        """
        signs = _common.component_signs(component, self.shape, self.like)
        if self.basis is None or not self._commuting:
            return None
        x = _common.into_component(self._xp, _xp.copy(self.basis), signs)
        stack = self.shape[:-2]
        return x, np.zeros(stack, dtype=x.real.dtype) if stack else 0.0
