"""The ten principal components of the digits, against the exact eigenvectors."""

import numpy as np
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits

import landingopt as lo

data = load_digits().data
data = data - data.mean(axis=0)

problem = lo.problems.PCA(data, n_components=10)  # f(X) = -||data X||_F^2 / (2 N)
result = lo.minimize(problem, tol=1e-10, rng=0)
exact, optimum = problem.optimum()

total = np.mean(np.sum(data**2, axis=1))
angles = subspace_angles(exact, result.feasible_x)  # between the two subspaces

print(f"landing: {result.nit} iterations, {result.status.name}, distance {result.distance:.1e}")
print(
    f"explained variance: {-2 * result.feasible_fun / total:.6%} (exact {-2 * optimum / total:.6%})"
)
print(f"relative error of f: {abs(result.feasible_fun - optimum) / abs(optimum):.1e}")
print(f"largest principal angle: {angles.max():.1e} rad")
