"""Test problems with data, objective, gradient, Hessian and, where there is one, the exact optimum.

Every class meets the same protocol: ``shape``, ``constraint``, ``like``, ``fun(x)``, ``grad(x)``,
``value_and_gradient(x)`` and ``hessp(x, v)``, and ``optimum(component=None)`` where a closed form may
be known. Nothing is inherited: a class of one's own with these names works wherever these do.
"""

from landingopt.problems.brockett import Brockett
from landingopt.problems.ica import ICA
from landingopt.problems.joint_diagonalization import JointDiagonalization
from landingopt.problems.pca import PCA
from landingopt.problems.procrustes import Procrustes
from landingopt.problems.unbalanced import UnbalancedProcrustes

__all__ = [
    "ICA",
    "PCA",
    "Brockett",
    "JointDiagonalization",
    "Procrustes",
    "UnbalancedProcrustes",
]
