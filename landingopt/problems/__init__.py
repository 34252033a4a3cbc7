"""Test problems with data, objective, gradient, Hessian and, where there is one, the exact optimum.

Every class meets the same protocol: ``shape``, ``constraint``, ``like``, ``fun(x)``, ``grad(x)``,
``value_and_gradient(x)`` and ``hessp(x, v)``, and ``optimum(component=None)`` where a closed form may
be known. A class of one's own with these names works wherever these do. Finite sums, for the
stochastic methods, have ``n_terms``, ``fun_terms(x, terms)`` and ``grad_terms(x, terms)`` beside them:
``ICA``, ``SampledPCA``, ``OrthogonalClassifier``.
"""

from landingopt.problems.brockett import Brockett
from landingopt.problems.classifier import OrthogonalClassifier
from landingopt.problems.ica import ICA, amari_distance, whiten
from landingopt.problems.joint_diagonalization import JointDiagonalization
from landingopt.problems.pca import PCA
from landingopt.problems.procrustes import Procrustes
from landingopt.problems.samples import SampledPCA, online_pca, stream_pca
from landingopt.problems.unbalanced import UnbalancedProcrustes

__all__ = [
    "ICA",
    "PCA",
    "Brockett",
    "JointDiagonalization",
    "OrthogonalClassifier",
    "Procrustes",
    "SampledPCA",
    "UnbalancedProcrustes",
    "amari_distance",
    "online_pca",
    "stream_pca",
    "whiten",
]
