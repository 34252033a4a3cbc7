"""Test problems with data, objective, gradient, Hessian and, where there is one, the exact optimum.

Every class meets the same protocol: ``shape``, ``constraint``, ``like``, ``fun(x)``, ``grad(x)``,
``value_and_gradient(x)``, ``hessp(x, v)`` and ``optimum(component=None)``. Nothing is inherited: a
class of one's own with these names works wherever these do.
"""

from landingopt.problems.brockett import Brockett
from landingopt.problems.pca import PCA
from landingopt.problems.procrustes import Procrustes
from landingopt.problems.unbalanced import UnbalancedProcrustes

__all__ = ["PCA", "Brockett", "Procrustes", "UnbalancedProcrustes"]
