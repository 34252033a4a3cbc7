"""A pymanopt problem, unchanged, solved by landing and compared with pymanopt's own solvers."""

import numpy as np
import pymanopt

import landingopt as lo

# --- what a user of pymanopt already has ---------------------------------------------------------
rng = np.random.default_rng(0)
matrix = rng.standard_normal((80, 80))
matrix = matrix + matrix.T
weights = np.arange(6.0, 0.0, -1.0)
manifold = pymanopt.manifolds.Stiefel(80, 6)


@pymanopt.function.numpy(manifold)
def cost(x):
    return np.sum((matrix @ x) * x * weights)


@pymanopt.function.numpy(manifold)
def euclidean_gradient(x):
    return 2.0 * (matrix @ x) * weights


@pymanopt.function.numpy(manifold)
def euclidean_hessian(x, v):
    return 2.0 * (matrix @ v) * weights


problem = pymanopt.Problem(
    manifold, cost, euclidean_gradient=euclidean_gradient, euclidean_hessian=euclidean_hessian
)

# --- the same problem, handed over as it is ------------------------------------------------------
result = lo.minimize(problem, tol=1e-10, rng=0)
eigenvalues = np.linalg.eigvalsh(matrix)[:6]  # the smallest one meets the largest weight
print(
    f"landing: f = {result.feasible_fun:.10f} after {result.nit} iterations ({result.status.name})"
)
print(f"exact:   f = {np.sum(eigenvalues * weights):.10f}")

comparison = lo.compare(
    problem,
    {
        "landing": lo.landing(),
        "pymanopt CG": lo.pymanopt("ConjugateGradient"),
        "pymanopt TR": lo.pymanopt("TrustRegions"),
    },
    tol=1e-6,
    rng=0,
)
print(comparison)
