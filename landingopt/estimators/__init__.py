"""Estimators of the gradient: full, of minibatches, variance-reduced, and transforms around any of them.

A recipe's ``start(oracle, value)`` gives a run with ``fill(point)``, a no-op where it has been done. It
leaves the exact gradient in ``point.gradient``, or what the field is to follow in its place in
``point.estimate``. An estimator whose class has ``transforms = True`` is refused by searches that
compare f with its slope, and one with ``stochastic`` sees some of the terms of a finite sum at a time.
``curvature(x)`` of a run tells the largest curvature at x, for steps that are chosen at the start.
"""

from landingopt.estimators.adam import Adam
from landingopt.estimators.full import Full
from landingopt.estimators.minibatch import MiniBatch
from landingopt.estimators.momentum import Momentum
from landingopt.estimators.saga import Saga
from landingopt.estimators.svrg import Svrg
from landingopt.estimators.tangent import Tangent

__all__ = ["Adam", "Full", "MiniBatch", "Momentum", "Saga", "Svrg", "Tangent"]
