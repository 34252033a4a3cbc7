r"""Laws: what theory promises of a run, as functions of the number of iterations T.

The sublinear laws bound means: (1/T) sum_{t<T} ||grad f(X_t)||^2 and (1/T) sum_{t<T} N(X_t), with
N = ||X^H X - I||^2 / 4. The mean over the last half, t in [T/2, T), obeys a sublinear law where the
whole mean does, with twice the constant, and shows what the whole mean hides: a plateau.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Bounded", "Law", "Linear", "LogOverSqrtT", "OneOverSqrtT", "OneOverT", "Quadratic", "Sublinear",
]  # fmt: skip


class Law:
    """A law: :class:`Sublinear` ones bound means, :class:`Linear`, :class:`Quadratic` single terms."""

    name = "law"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Sublinear(Law):
    """mean = O(T^-power).

    Parameters
    ----------
    power : float
        At least 0.

    Notes
    -----
    ``fresh``: the law is of runs whose step is fixed in advance for their length, so that each T needs
    runs of its own. ``paid``: f itself descends, as without noise and with vanishing noise.

    Examples
    --------
    >>> from landingopt.rates import laws
    >>> laws.Sublinear(0.75).promise(16.0)
    0.125
    """

    power: float

    fresh = False
    paid = False

    def __post_init__(self) -> None:
        if not (isinstance(self.power, (int, float)) and 0.0 <= self.power < math.inf):
            raise ValueError(f"power must be a number of at least 0, got {self.power!r}")

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"O(1/T^{self.power:g})"

    def promise(self, T: Any) -> Any:
        """The promised mean up to its constant."""
        return np.asarray(T, dtype=float) ** -self.power if np.ndim(T) else float(T) ** -self.power


@dataclass(frozen=True)
class OneOverT(Sublinear):
    """O(1/T): gradient descent with a constant step, SAGA; SVRG is seen to obey it.

    (1/T) sum ||R(X_t)||^2 <= 4 (L_0 - L_*) / (eta T) and (1/T) sum N(X_t) <= 2 (L_0 - L_*) / (eta nu T).

    References
    ----------
    [AVGA24], the theorems on gradient descent and on SAGA.
    """

    power: float = 1.0

    paid = True
    name = "O(1/T)"


@dataclass(frozen=True)
class OneOverSqrtT(Sublinear):
    """O(1/sqrt T): SGD with a step eta_0 / sqrt(T) that is fixed in advance for T iterations.

    References
    ----------
    [AVGA24], the theorem on SGD.
    """

    power: float = 0.5

    fresh = True
    name = "O(1/sqrt T)"


@dataclass(frozen=True)
class LogOverSqrtT(Sublinear):
    """O(log T / sqrt T): SGD with steps eta_0 / sqrt(1 + t).

    A mean of exactly this order has a slope of about -3/8 at T = 2^12, not -1/2: a law of its own.

    References
    ----------
    [AVGA24], the theorem on SGD.
    """

    power: float = 0.5

    name = "O(log T / sqrt T)"

    def promise(self, T: Any) -> Any:
        return np.log(T) * super().promise(T)


@dataclass(frozen=True)
class Bounded(Sublinear):
    """O(1): SGD with a constant step, whose means fall to a plateau of the order of the step.

    O(1/T) + 2 L_g sigma^2 eta: bounded, and no more than that.

    References
    ----------
    [AVGA24], the theorem on SGD.
    """

    power: float = 0.0

    name = "O(1), a plateau"


@dataclass(frozen=True)
class Linear(Law):
    """f - f* = O(factor^t): the local law of gradient descent at a nondegenerate minimum.

    Judged on f - f* where f* is known, else on ||grad f||^2, which has the same factor.

    Parameters
    ----------
    factor : float
        Per iteration, in (0, 1). :func:`landingopt.rates.local_factors` gives it for Procrustes and PCA.

    Examples
    --------
    >>> from landingopt.rates import laws
    >>> print(laws.Linear(0.9))
    O(0.9^t)
    """

    factor: float

    def __post_init__(self) -> None:
        if not (isinstance(self.factor, (int, float)) and 0.0 < self.factor < 1.0):
            raise ValueError(f"factor must lie strictly between 0 and 1, got {self.factor!r}")

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"O({self.factor:.6g}^t)"


@dataclass(frozen=True)
class Quadratic(Law):
    """||grad f||_{t+1} = O(||grad f||_t^2): Newton's law at a nondegenerate minimum.

    Of exact Newton steps: ``lo.landing_newton()``, whose inner solves are as accurate as pays, is linear
    with a small factor near rounding.
    """

    name = "quadratic"


def check_law(law: Any) -> Law:
    """A law, or an error that says what one is."""
    if isinstance(law, type) and issubclass(law, Law):
        raise TypeError(f"expect must be an instance: call it, lo.rates.laws.{law.__name__}(...)")
    if not isinstance(law, Law):
        raise TypeError(
            "expect must be a law such as lo.rates.laws.OneOverT() or lo.rates.laws.Linear(0.99), got "
            f"{law!r}"
        )
    return law
