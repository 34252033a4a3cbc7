"""The orthogonal Procrustes problem."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Stiefel
from landingopt.problems import _common


class Procrustes:
    r"""Orthogonal Procrustes problem, min :math:`w \|X A - B\|_F^2` over :math:`X^H X = I`.

    The gradient is 2 w R A^H with the residual R = X A - B, and the Hessian V -> 2 w V A A^H. The
    residual is formed explicitly, so values stay accurate where the optimum is near zero.

    Parameters
    ----------
    A : array (..., p, m)
        Real or complex, float32 or float64 precision. Leading axes make a stack of independent
        problems.
    B : array (..., n, m)
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
    copy of A^H is stored. Cost: ``fun`` one product of n p m multiplications,
    ``value_and_gradient`` two, ``hessp`` one of n p^2 (two of n p m where m < p / 2).

    ``fun`` returns a Python float for one NumPy matrix, a 0-d array for one matrix of another
    library, and one value per matrix for a stack.

    References
    ----------
    [Talk], [AVGA24]; the closed form is in P. H. Schönemann, A generalized solution of the
    orthogonal Procrustes problem, Psychometrika 31 (1966).

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt.problems import Procrustes
    >>> problem = Procrustes(A=np.eye(2), B=np.array([[0.0, -2.0], [2.0, 0.0]]))
    >>> problem
    Procrustes(n=2, p=2, m=2, float64)
    >>> x, fun = problem.optimum()
    >>> np.round(x) + 0.0
    array([[ 0., -1.],
           [ 1.,  0.]])
    >>> round(fun, 12), round(problem.fun(np.eye(2)), 12)
    (2.0, 10.0)
    """

    constraint = Stiefel()
    _xp = _common.NAMESPACE

    def __init__(self, A: Array, B: Array, *, weight: float = 1.0):
        xp = _common.check_data(A=A, B=B)
        if A.shape[-1] != B.shape[-1]:
            raise ValueError(
                f"A has shape {tuple(A.shape)} and B {tuple(B.shape)}; X A - B needs A (..., p, m) "
                "and B (..., n, m) with the same last axis m."
            )
        self.A, self.B = A, B
        self.weight = _common.check_weight(weight)
        self.like = A
        self.shape: tuple[int, ...] = (*A.shape[:-2], B.shape[-2], A.shape[-2])
        self._adjoint = _common.scaled_adjoint(xp, A, 2.0 * self.weight)
        self._times = _common.product(xp, A)

    @classmethod
    def random(
        cls,
        p: int,
        n: int | None = None,
        m: int | None = None,
        *,
        stack: tuple[int, ...] = (),
        rng: Any = None,
        dtype: Any = np.float64,
        weight: float = 1.0,
    ) -> Procrustes:
        """An instance with Gaussian A and B, the setting of the talk's figures ([Talk]: p = 40).

        Parameters
        ----------
        p : int
            Columns of X.
        n, m : int, optional
            Rows of X, and columns of A and B; both default to ``p``.
        stack : tuple of int
            Leading axes.
        rng : numpy.random.Generator or seed, optional
        dtype : NumPy dtype
            A complex dtype gives complex Gaussians of unit variance.
        weight : float
            As for the class.

        Examples
        --------
        >>> Procrustes.random(3, 5, stack=(4,), rng=0)
        Procrustes(stack=(4,), n=5, p=3, m=3, float64)
        """
        rng = np.random.default_rng(rng)
        n = p if n is None else n
        m = p if m is None else m
        A = _common.gaussian(rng, (*stack, p, m), dtype)
        B = _common.gaussian(rng, (*stack, n, m), dtype)
        return cls(A, B, weight=weight)

    def __repr__(self) -> str:
        n, p = self.shape[-2:]
        m = self.A.shape[-1]
        return _common.describe(
            "Procrustes", self.shape[:-2], self.like, self.weight, n=n, p=p, m=m
        )

    def fun(self, x: Array) -> Any:
        """The objective w ||x A - B||_F^2, one value per matrix."""
        residual = self._times(x, self.A)
        residual -= self.B
        return self.weight * _common.inner(self._xp, residual, residual)

    def grad(self, x: Array) -> Array:
        """The Euclidean gradient 2 w (x A - B) A^H."""
        residual = self._times(x, self.A)
        residual -= self.B
        return self._times(residual, self._adjoint)

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        """Objective and gradient from one residual."""
        residual = self._times(x, self.A)
        residual -= self.B
        value = self.weight * _common.inner(self._xp, residual, residual)
        return value, self._times(residual, self._adjoint)

    def hessp(self, x: Array, v: Array) -> Array:
        """The Hessian applied to v, 2 w v A A^H; the same at every x."""
        p, m = self.A.shape[-2:]
        if p <= 2 * m:
            return self._times(v, self._gram)
        return (v @ self.A) @ self._adjoint

    @cached_property
    def _gram(self) -> Array:
        return self.A @ self._adjoint

    def optimum(self, component: Any = None) -> tuple[Array, Any] | None:
        """The global minimiser and its value, in the precision of the data.

        With the singular value decomposition B A^H = U S V^H, x = U V^H; for real square matrices
        whose det x has the other sign than ``component``, the smallest singular value is flipped
        which gives the minimiser on that component.

        Parameters
        ----------
        component : {None, +1, -1} or integer array of the stack's shape
            Sign of det x, for real square matrices; None: the better of both.

        Returns
        -------
        (x, fun), or None for a wide x (n < p): ||x A||_F is not constant there and no closed form
        is known.

        Raises
        ------
        ValueError
            A component where the manifold is connected, or other than +1 and -1.
        """
        xp = self._xp
        n, p = self.shape[-2:]
        signs = _common.component_signs(component, self.shape, self.like)
        if n < p:
            return None
        # ||X A||_F = ||A||_F on the manifold, so that min f is max Re <X, B A^H>.
        left, _, right = xp.linalg.svd(self.B @ _xp.H(self.A), full_matrices=False)
        if signs is not None:
            determinant = xp.linalg.det(left) * xp.linalg.det(right)
            left = _common.scale_last_column(xp, left, xp.sign(determinant) * signs)
        x = left @ right
        return x, self.fun(x)
