"""The constants of the landing's theorem: bounds on f over the tube, as numbers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.problems import PCA, Brockett, Procrustes, SampledPCA, UnbalancedProcrustes


@dataclass(frozen=True, eq=False)
class Constants:
    r"""What the theorem needs to know of f: bounds that hold everywhere on the tube St^eps.

    Parameters
    ----------
    lipschitz : float or array
        L_f, of the operator norm of the Hessian.
    gradient : float or array
        Of the spectral norm ||G||_2.
    cross : float or array
        s, of ||sym(X^H G)||_2.
    eps : float in (0, 3/4)
        Radius of the tube {||X^H X - I||_F <= eps}.
    minimum : float, array or None
        f*, the least f on the manifold, or on the component that the run is in; any number below it
        serves, less sharply. None: unknown, and nothing that needs it is checked.
    quadratic : bool
        The Hessian is constant. Else no step is known to be short enough: that needs third derivatives.

    Arrays have the shape of a stack, one number for each matrix.

    Raises
    ------
    TypeError, ValueError
        What is no number, not finite or negative (``gradient`` also 0); eps outside (0, 3/4).

    References
    ----------
    [AVGA24], the merit function and the theorem on gradient descent.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.rates.constants import Constants
    >>> problem = lo.problems.PCA.random(10, 2, spectrum=range(10), rng=0)
    >>> constants = Constants.of(problem, eps=0.21)
    >>> [round(float(c), 6) for c in (constants.lipschitz, constants.gradient, constants.cross)]
    [9.0, 9.9, 10.89]
    """

    lipschitz: Any
    gradient: Any
    cross: Any
    eps: float
    minimum: Any = None
    quadratic: bool = False

    def __post_init__(self) -> None:
        for name in ("lipschitz", "gradient", "cross", "minimum"):
            value = getattr(self, name)
            if value is not None or name != "minimum":
                object.__setattr__(self, name, _checked(name, value))
        for name in ("lipschitz", "cross"):
            if np.any(getattr(self, name) < 0.0):
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")
        if not np.all(self.gradient > 0.0):
            raise ValueError(
                f"gradient must be positive, got {self.gradient!r}: a constant f needs no certificate"
            )
        object.__setattr__(self, "eps", _checked_eps(self.eps))

    @classmethod
    def of(cls, problem: Any, eps: float, component: Any = None) -> Constants:
        """The constants of a quadratic f = <X, H[X]> / 2 - Re <C, X> + const of ``lo.problems``.

        L_f = ||H||, and because ||X||_2 <= b = sqrt(1 + eps) on the tube,

            ||G||_2 <= b L_f + ||C||_2,    ||sym(X^H G)||_2 <= b^2 L_f + b ||C||_2.

        Parameters
        ----------
        problem : Procrustes, UnbalancedProcrustes, PCA, SampledPCA or Brockett
            Of any shape, real or complex, or a stack.
        eps : float in (0, 3/4)
        component : {None, +1, -1} or integer array of the stack's shape
            The sign of det x whose minimum is meant, for real square matrices; None: the better one,
            which is below both.

        Raises
        ------
        TypeError
            Another problem.
        ValueError
            eps outside (0, 3/4), or what ``problem.optimum`` refuses.

        Notes
        -----
        One singular value decomposition or two of the data's size, and ``problem.optimum``. For PCA the
        matrix K is formed.
        """
        # The very type: a subclass may have another f.
        norm = _HESSIAN_NORMS.get(type(problem))
        if norm is None:
            known = ", ".join(kind.__name__ for kind in _HESSIAN_NORMS)
            raise TypeError(
                f"the constants are known for {known}, not for {type(problem).__name__}: pass "
                "constants=lo.rates.Constants(lipschitz=..., gradient=..., cross=..., eps=..., "
                "minimum=...) of your own"
            )
        b = math.sqrt(1.0 + _checked_eps(eps))
        lipschitz = norm(problem)
        # C = -grad f(0).
        start = _xp.from_host(np.zeros(problem.shape), problem.like)
        offset = _spectral(problem.grad(start))
        optimum = problem.optimum(component)
        return cls(
            lipschitz=lipschitz,
            gradient=b * lipschitz + offset,
            cross=b * b * lipschitz + b * offset,
            eps=eps,
            minimum=None if optimum is None else number(optimum[1]),
            quadratic=True,
        )

    def mu(self, lam: float) -> Any:
        r"""The weight of N in L from which <grad L, Lambda> >= ||R||^2 / 2 + lam mu N on St^eps.

        With K = gradient + lipschitz sqrt(1 + eps),

            mu = 2 / (3 - 4 eps) (3 s + L_f (1 + eps) + K^2 (1 + eps) / (4 lam (1 - eps))).

        Raises
        ------
        ValueError
            lam that is not positive.
        """
        # With r = ||R||, d = ||Delta||, and because X^H R is skew:
        #   <grad L, R> = <G - (G Delta + H[X Delta]) / 2, R> >= r^2 / (1 + eps) - K d r / 2,
        #   <grad L, X Delta> = -3/2 <Phi Delta, Delta> - <H[X Delta], X Delta> / 2 + mu ||X Delta||^2
        #                    >= (mu (1 - eps) - 3/2 s - L_f (1 + eps) / 2) d^2.
        # The first is >= r^2 / 2 - K^2 (1 + eps) / (8 (1 - eps)) d^2, and N = d^2 / 4.
        lam = _positive("lam", lam)
        eps = self.eps
        k = self.gradient + self.lipschitz * math.sqrt(1.0 + eps)
        mixed = k * k * (1.0 + eps) / (4.0 * lam * (1.0 - eps))
        return 2.0 / (3.0 - 4.0 * eps) * (3.0 * self.cross + self.lipschitz * (1.0 + eps) + mixed)

    def nu(self, lam: float) -> Any:
        """The share of N in the descent, nu = lam mu."""
        return lam * self.mu(lam)

    def smoothness(self, lam: float) -> Any:
        r"""L_g, of the Lipschitz constant of grad L on St^eps, for a quadratic f; else infinite.

        With g the bound on ||G||_2, term by term of grad L,

            L_g = L_f + (s + sqrt(1 + eps) g + (1 + eps) L_f) + (eps L_f + 2 sqrt(1 + eps) g) / 2
                  + L_f (2 + 3 eps) / 2 + mu (2 + 3 eps).
        """
        if not self.quadratic:
            return math.inf
        eps, f, g, s = self.eps, self.lipschitz, self.gradient, self.cross
        b = math.sqrt(1.0 + eps)
        normal = eps + 2.0 * b * b  # of X Delta: ||V Delta + X (X^H V + V^H X)||
        return (
            f  # of G
            + (s + b * g + b * b * f)  # of X Phi
            + (eps * f + 2.0 * b * g) / 2.0  # of G Delta / 2
            + f * normal / 2.0  # of H[X Delta] / 2
            + self.mu(lam) * normal
        )

    def step(self, lam: float) -> Any:
        """The theorem's longest, min(1 / (2 L_g), nu / (4 L_g lam^2 (1 + eps))); 0: none is known."""
        ratio = self.nu(lam) / (2.0 * lam * lam * (1.0 + self.eps))
        return _plain(np.minimum(1.0, ratio) / (2.0 * self.smoothness(lam)))


def _checked(name: str, value: Any) -> Any:
    """A finite float, or a float64 array."""
    try:
        array = number(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, or one for each matrix, got {value!r}") from None
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return _plain(array)


def _checked_eps(eps: Any) -> float:
    real = isinstance(eps, numbers.Real) and not isinstance(eps, bool)
    if not (real and 0.0 < eps < 0.75):
        raise ValueError(
            f"eps must lie strictly between 0 and 3/4, got {eps!r}: beyond, the theorem has no mu; "
            "pass lo.landing(..., eps=0.5), say"
        )
    return float(eps)


def _plain(value: Any) -> Any:
    return value if np.ndim(value) else float(value)


def _positive(name: str, value: Any) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and 0.0 < value < math.inf):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return float(value)


def number(value: Any) -> np.ndarray:
    """One number, or one for each matrix, in double precision on the host."""
    host = _xp.to_host(value) if hasattr(value, "shape") else value
    return np.asarray(host, dtype=np.float64)


def wide(a: Array) -> np.ndarray:
    """An array in double precision on the host; fresh."""
    host = _xp.to_host(a)
    return np.array(host, dtype=np.result_type(host.dtype, np.float64))


def _spectral(a: Array) -> Any:
    return np.linalg.norm(wide(a), 2, axis=(-2, -1))


def _of_squares(problem: Procrustes | UnbalancedProcrustes) -> Any:
    """V -> 2 w V A A^H, or 2 w A^H A V."""
    return 2.0 * problem.weight * _spectral(problem.A) ** 2


def _of_brockett(problem: Brockett) -> Any:
    """V -> 2 K V W."""
    return 2.0 * _spectral(problem.K) * float(np.max(np.abs(_xp.to_host(problem.weights))))


def _of_components(problem: PCA | SampledPCA) -> Any:
    """V -> -K V."""
    identity = _xp.from_host(np.eye(problem.shape[-2]), problem.like)
    return _spectral(problem.hessp(identity, identity))


_HESSIAN_NORMS: dict[type, Callable[[Any], Any]] = {
    Procrustes: _of_squares,
    UnbalancedProcrustes: _of_squares,
    PCA: _of_components,
    SampledPCA: _of_components,
    Brockett: _of_brockett,
}
