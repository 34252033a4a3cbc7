"""Estimators of the gradient: the full gradient, and transforms around an estimator.

A recipe's ``start(oracle, value)`` gives a run with ``fill(point)``, a no-op where it has been done. It
leaves the exact gradient in ``point.gradient``, or what the field is to follow in its place in
``point.estimate``. An estimator whose class has ``transforms = True`` is refused by searches that
compare f with its slope.
"""

from landingopt.estimators.adam import Adam
from landingopt.estimators.full import Full
from landingopt.estimators.momentum import Momentum
from landingopt.estimators.tangent import Tangent

__all__ = ["Adam", "Full", "Momentum", "Tangent"]
