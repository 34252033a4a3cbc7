"""Directions: which way to go from a point, given its field.

A direction is a frozen recipe; ``start(space, oracle)`` returns a run with ``direction(point)``, a list
with one :class:`~landingopt.fields.Form` for each block, whose F the search follows as X - eta F. A
direction with a memory is scaled so that eta = 1 is the step to try first; it learns from
``point.previous``, the point before, and forgets where ``point.restart`` says so.
"""

from landingopt.directions.conjugate import ConjugateGradient
from landingopt.directions.lbfgs import LBFGS
from landingopt.directions.metric import Metric
from landingopt.directions.newton import Newton
from landingopt.directions.steepest import Steepest

__all__ = ["LBFGS", "ConjugateGradient", "Metric", "Newton", "Steepest"]
