"""Estimators of the gradient: the full gradient, and (for finite sums) cheaper ones."""

from landingopt.estimators.full import Full

__all__ = ["Full"]
