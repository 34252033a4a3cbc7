"""The unbalanced Procrustes problem: least squares with orthonormal columns."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common


class UnbalancedProcrustes:
    r"""Unbalanced Procrustes problem, min :math:`w \|A X - B\|_F^2` over :math:`X^H X = I`.

    The gradient is 2 w A^H R with the residual R = A X - B, and the Hessian V -> 2 w A^H A V. For
    n > p, ||A X||_F is not constant on the manifold: there is no closed form, and there may be
    local minima that are not global.

    Parameters
    ----------
    A : array (..., m, n)
        Real or complex, float32 or float64 precision. Leading axes make a stack of independent
        problems.
    B : array (..., m, p)
        Of the library, dtype, device and stack of ``A``.
    weight : float
        The positive factor w, for tests of scale.

    Attributes
    ----------
    shape : tuple
        (..., n, p), the shape of the variable X. A wide X (n < p) means X X^H = I.
    constraint : Stiefel
    like : array
        ``A``: library, dtype and device of the variable.

    Raises
    ------
    TypeError
        Not arrays, not floating point, or of different libraries or dtypes.
    ValueError
        Shapes that do not fit, empty or non-finite data, different devices, a weight that is not
        positive.

    Notes
    -----
    References to ``A`` and ``B`` are kept and never written to; leave them unchanged. One scaled
    copy of A^H is stored. Cost: ``fun`` one product of m n p multiplications,
    ``value_and_gradient`` two, ``hessp`` one of n^2 p (two of m n p where m < n / 2).

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack.

    References
    ----------
    L. Eldén, H. Park, A Procrustes problem on the Stiefel manifold, Numerische Mathematik 82
    (1999).

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import UnbalancedProcrustes
    >>> problem = UnbalancedProcrustes(A=np.diag([1.0, 2.0, 3.0]), B=np.ones((3, 1)))
    >>> problem
    UnbalancedProcrustes(n=3, p=1, m=3, float64)
    >>> fun, gradient = problem.value_and_gradient(np.array([[0.0], [0.0], [1.0]]))
    >>> fun, gradient.ravel().tolist()
    (6.0, [-2.0, -4.0, 12.0])
    >>> problem.optimum() is None
    True
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, A: Array, B: Array, *, weight: float = 1.0):
        xp = _common.check_data(A=A, B=B)
        if A.shape[-2] != B.shape[-2]:
            raise ValueError(
                f"A has shape {tuple(A.shape)} and B {tuple(B.shape)}; A X - B needs A (..., m, n) "
                "and B (..., m, p) with the same number of rows m."
            )
        self.A, self.B = A, B
        self.weight = _common.check_weight(weight)
        self.like = A
        self.shape: tuple[int, ...] = (*A.shape[:-2], A.shape[-1], B.shape[-1])
        self._adjoint = _common.scaled_adjoint(xp, A, 2.0 * self.weight)

    @classmethod
    def random(
        cls,
        n: int,
        p: int,
        m: int | None = None,
        *,
        stack: tuple[int, ...] = (),
        rng: Any = None,
        dtype: Any = np.float64,
        weight: float = 1.0,
    ) -> UnbalancedProcrustes:
        """An instance with Gaussian A and B.

        Parameters
        ----------
        n, p : int
            Rows and columns of X.
        m : int, optional
            Rows of A and B; default ``n``.
        stack : tuple of int
            Leading axes.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype
            A complex dtype gives complex Gaussians of unit variance.
        weight : float
            As for the class.

        Examples
        --------
        >>> UnbalancedProcrustes.random(60, 20, rng=0)
        UnbalancedProcrustes(n=60, p=20, m=60, float64)
        """
        rng = np.random.default_rng(rng)
        m = n if m is None else m
        A = _common.gaussian(rng, (*stack, m, n), dtype)
        B = _common.gaussian(rng, (*stack, m, p), dtype)
        return cls(A, B, weight=weight)

    def __repr__(self) -> str:
        n, p = self.shape[-2:]
        m = self.A.shape[-2]
        return _common.describe(
            "UnbalancedProcrustes", self.shape[:-2], self.like, self.weight, n=n, p=p, m=m
        )

    def fun(self, x: Array) -> Any:
        """The objective w ||A x - B||_F^2, one value per matrix."""
        residual = self.A @ x
        residual -= self.B
        return self.weight * _common.inner(self._xp, residual, residual)

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient 2 w A^H (A x - B)."""
        residual = self.A @ x
        residual -= self.B
        return self._adjoint @ residual

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from one residual."""
        residual = self.A @ x
        residual -= self.B
        value = self.weight * _common.inner(self._xp, residual, residual)
        return value, self._adjoint @ residual

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, 2 w A^H A v; the same at every x."""
        m, n = self.A.shape[-2:]
        if n <= 2 * m:
            return self._gram @ v
        return self._adjoint @ (self.A @ v)

    @cached_property
    def _gram(self) -> Array:
        return self._adjoint @ self.A

    def optimum(self, component: Any = None) -> None:
        """None: there is no closed form for n > p.

        (For n = p it is the balanced problem in X^H: ``Procrustes(A^H, B^H)``, which has one.)

        Raises
        ------
        ValueError
            A component where the manifold is connected, or other than +1 and -1.
        """
        _common.component_signs(component, self.shape, self.like)
