"""Recover the rotation between two noisy views of real images, by Procrustes.

Every 8 x 8 digit is a vector of 64 pixels. A second camera sees the same digits through an unknown
orthogonal map Q, and both views are noisy. Which Q was it?
"""

import numpy as np
from sklearn.datasets import load_digits

import landingopt as lo

rng = np.random.default_rng(0)
images = load_digits().data.T / 16.0  # (64 pixels, 1797 images)
rotation = lo.stiefel.random(64, rng=1)

first_view = images + 0.05 * rng.standard_normal(images.shape)
second_view = rotation @ images + 0.05 * rng.standard_normal(images.shape)

problem = lo.problems.Procrustes(first_view, second_view)  # min ||X first - second||_F^2
# The two signs of det X are two separate components of O_64: solve in both, keep the better.
result = lo.minimize(problem, component="both", rng=2)
exact, optimum = problem.optimum()

seen = np.linalg.norm((result.feasible_x - rotation) @ images) / np.linalg.norm(images)
print(
    f"landing: f = {result.feasible_fun:.6f} after {result.nit} iterations ({result.status.name})"
)
print(f"closed form: f = {optimum:.6f}")
print(f"det X = {result.component:+d}, of the true rotation {lo.stiefel.component(rotation):+d}")
print(f"images mapped to within {100 * seen:.2f} % of where the true rotation puts them")
