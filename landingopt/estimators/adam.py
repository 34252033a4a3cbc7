"""Adam around any estimator, with one scale for a whole matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.estimators._common import Around, check_base, check_decay, is_stochastic
from landingopt.estimators.full import Full
from landingopt.oracle import Oracle
from landingopt.point import Point


@dataclass(frozen=True)
class Adam:
    """Adam with ONE second moment for each matrix: its direction, and so the geometry, is kept.

    With G what ``base`` gives, m = v = 0 before the first step and t = 1, 2, ... counting steps,

        m <- beta1 m + (1 - beta1) G,             m_hat = m / (1 - beta1^t),
        v <- beta2 v + (1 - beta2) ||G||_F^2,     v_hat = v / (1 - beta2^t),
        estimate = m_hat / (sqrt(v_hat) + epsilon).

    Adam's own v has a number for each entry, which turns the gradient: rotating the rows of X would
    change the method. Here v is a number for each matrix of a stack and for each block of a product.
    The estimate has a norm of about 1 while the gradients agree, whatever the scale of f, so that a step
    eta is a length. It is the norm of all of G: at an optimum where its normal part does not vanish
    (PCA, Procrustes) the steps along the manifold go to zero, and a constant eta converges if it is
    short enough; where G itself goes to zero it circles the optimum, and eta should decay. With
    ``base=Tangent()`` it is the norm of the tangent part.

    Parameters
    ----------
    beta1, beta2 : float in [0, 1)
        What is kept of the past in m and in v.
    epsilon : float
        Added to sqrt(v_hat); 0 makes the iterates independent of the scale of f to the last digits.
    base : estimator
        What gives G: ``Full()``, or another transform.

    Raises
    ------
    TypeError, ValueError
        A beta outside [0, 1), epsilon < 0, a base that is no estimator.

    Notes
    -----
    Cost: no product; a norm and four passes over n x p numbers, and two arrays for each block. v is
    kept as its root, so that no square leaves the range of the dtype. On a device nothing is read
    back. What is measured stays the gradient of f.

    References
    ----------
    Kingma, Ba, Adam, ICLR 2015; one second moment for a vector: Ling, Sharp, Jacobson, VectorAdam for
    rotation equivariant geometry optimization, NeurIPS 2022; with orthogonal matrices: [POGO].

    Examples
    --------
    >>> import landingopt as lo
    >>> method = lo.pogo(step=0.2, base=lo.estimators.Adam())
    >>> for scale in (1e-6, 1.0, 1e6):  # one step for all
    ...     data = lo.problems.Procrustes.random(10, rng=0)
    ...     problem = lo.problems.Procrustes(data.A, data.B, weight=scale)
    ...     result = lo.minimize(problem, method=method, rng=0, stop=lo.MaxIterations(1000))
    ...     best = problem.optimum(component=result.component)[1]
    ...     print(f"{result.feasible_fun / best - 1:.0e}")
    2e-03
    2e-03
    2e-03
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    base: Any = field(default_factory=Full)

    transforms = True

    @property
    def stochastic(self) -> bool:
        return is_stochastic(self.base)

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            object.__setattr__(self, name, check_decay(name, getattr(self, name)))
        try:
            epsilon = float(self.epsilon)
        except (TypeError, ValueError):
            epsilon = math.nan
        if not 0.0 <= epsilon < math.inf:
            raise ValueError(f"epsilon must be a number >= 0, got {self.epsilon!r}")
        object.__setattr__(self, "epsilon", epsilon)
        check_base(self.base)

    def start(self, oracle: Oracle, value: bool) -> AdamRun:
        return AdamRun(self, oracle, value)


class AdamRun(Around):
    """``_root`` holds sqrt(v), a number for each matrix; ``_count`` is t."""

    __slots__ = ("base", "recipe", "kernels", "_momentum", "_estimate", "_root", "_count")

    def __init__(self, recipe: Adam, oracle: Oracle, value: bool):
        self.base, self.recipe = recipe.base.start(oracle, value), recipe
        blocks = oracle.space.blocks
        self.kernels = [block.kernels for block in blocks]
        self._momentum: list[Array] = [b.kernels.empty(b.inner_shape) for b in blocks]
        self._estimate: list[Array] = [b.kernels.empty(b.inner_shape) for b in blocks]
        self._root: list[Any] = [0.0] * len(blocks)
        self._count = 0

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        self.base.fill(point)
        if point.status is not None:  # the stream has ended
            return
        self._count += 1
        with np.errstate(all="ignore"):  # what is not finite becomes a status, not a warning
            for i, gradient in enumerate(point.followed):
                self._update(i, gradient)
        point.estimate = list(self._estimate)

    def _update(self, i: int, gradient: Array) -> None:
        recipe, kernels, t = self.recipe, self.kernels[i], self._count
        scalars = kernels.scalars
        # The estimate's memory is free until the end: (1 - beta1) G is formed there.
        fresh = kernels.scale(gradient, 1.0 - recipe.beta1, out=self._estimate[i])
        if t == 1:
            m = kernels.copy_into(fresh, self._momentum[i])
        else:
            m = kernels.scale(self._momentum[i], recipe.beta1, out=self._momentum[i])
            m = kernels.add(m, fresh, out=m)
        root = _hypotenuse(
            math.sqrt(recipe.beta2) * self._root[i],
            math.sqrt(1.0 - recipe.beta2) * kernels.norm(gradient),
            scalars,
        )
        size = root / math.sqrt(1.0 - recipe.beta2**t) + recipe.epsilon
        factor = scalars.divide(1.0 / (1.0 - recipe.beta1**t), size)
        # Only zeros so far, and epsilon = 0: the estimate is zero, not 0 / 0.
        factor = scalars.where(size > 0.0, factor, scalars.full(0.0))
        self._momentum[i], self._root[i] = m, root
        self._estimate[i] = kernels.scale(m, factor, out=fresh)


def _hypotenuse(a: Any, b: Any, scalars: Any) -> Any:
    """sqrt(a^2 + b^2) of numbers >= 0, right over the whole range of the dtype."""
    top = scalars.maximum(a, b)
    safe = scalars.where(top > 0.0, top, scalars.full(1.0))
    a, b = a / safe, b / safe
    return top * scalars.sqrt(a * a + b * b)
