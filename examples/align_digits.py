"""Recover the rotation between two noisy views of real images, by Procrustes.

The digits are given in their 40 leading principal components. A second camera sees the same digits
through an unknown orthogonal map Q, and both views are noisy. Which Q was it?
"""

import numpy as np
from sklearn.datasets import load_digits

import landingopt as lo

rng = np.random.default_rng(0)
images = load_digits().data / 16.0
images = images - images.mean(axis=0)
_, _, components = np.linalg.svd(images, full_matrices=False)
images = components[:40] @ images.T  # (40 components, 1797 images)
rotation = lo.stiefel.random(40, rng=1)

first_view = images + 0.05 * rng.standard_normal(images.shape)
second_view = rotation @ images + 0.05 * rng.standard_normal(images.shape)

problem = lo.problems.Procrustes(first_view, second_view)  # min ||X first - second||_F^2
# The two signs of det X are two separate components of O_40: solve in both, keep the better.
result = lo.minimize(problem, tol=1e-9, component="both", rng=2)
exact, optimum = problem.optimum()

error = np.linalg.norm((result.feasible_x - rotation) @ images) / np.linalg.norm(images)
print(f"landing: f = {result.feasible_fun:.8f} after {result.nit} iterations ({result.status})")
print(f"closed form: f = {optimum:.8f}")
print(f"det X = {result.component:+d}, of the true rotation {lo.stiefel.component(rotation):+d}")
print(f"images mapped to within {100 * error:.2f} % of where the true rotation puts them")
