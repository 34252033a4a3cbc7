"""An f of one's own, with no closed form: the varimax rotation of principal components.

Principal components mix everything with everything. Varimax looks for the orthogonal X for which the
columns of L X (L: loadings of the digits on 12 components) have squared entries that vary most, so
that each column concentrates on few pixels.
"""

import numpy as np
from sklearn.datasets import load_digits

import landingopt as lo

data = load_digits().data
data = data - data.mean(axis=0)
_, sigma, vh = np.linalg.svd(data, full_matrices=False)
loadings = vh[:12].T * sigma[:12] / np.sqrt(len(data))  # (64 pixels, 12 components)


def value_and_gradient(x):
    """Minus the varimax criterion, sum_j [mean_i u_ij^4 - (mean_i u_ij^2)^2], u = L x."""
    u = loadings @ x
    squares = u**2
    means = squares.mean(axis=0)
    fun = -float(np.sum((squares**2).mean(axis=0) - means**2))
    return fun, -4.0 * loadings.T @ (u * (squares - means)) / len(u)


problem = lo.Objective(value_and_gradient=value_and_gradient, shape=(12, 12))
print(lo.check_gradient(problem).message)

# f has many local minima: start from the components as they are, and from nine random rotations.
starts = [np.eye(12)] + [lo.stiefel.random(12, rng=seed) for seed in range(9)]
results = [lo.minimize(problem, x0, tol=1e-10) for x0 in starts]
best = min(results, key=lambda result: result.feasible_fun)

before = value_and_gradient(np.eye(12))[0]
print(f"solved {sum(result.success for result in results)} of {len(results)} starts")
print(f"varimax criterion: {-before:.4f} before, {-best.feasible_fun:.4f} after rotation")
print(f"gradient norm {best.gradient_norm:.1e}, distance {best.distance:.1e}")
