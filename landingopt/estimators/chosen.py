"""The step that is chosen at the start, for what an estimator is in the end."""

from __future__ import annotations

from typing import Any

from landingopt.estimators.minibatch import MiniBatch
from landingopt.estimators.saga import Saga
from landingopt.steps import FromCurvature


def chosen_step(estimator: Any) -> FromCurvature:
    """1 / (2 L); of Saga 1 / (6 L); of MiniBatch decreasing."""
    while hasattr(estimator, "base"):
        estimator = estimator.base
    if isinstance(estimator, MiniBatch):
        return FromCurvature(0.5, power=0.5, offset=50.0)
    return FromCurvature(1.0 / 6.0 if isinstance(estimator, Saga) else 0.5)
