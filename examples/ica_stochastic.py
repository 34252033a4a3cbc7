"""Independent components from a few samples a step: SGD stalls, SAGA and SVRG do not.

Ten Laplace sources are mixed by a Gaussian matrix. The Amari distance says how far an unmixing is from
another one, up to order and signs: from the true one it cannot fall below what 10 000 samples tell, so
that the methods are compared by the distance from the minimiser of f, found with full gradients.
"""

import numpy as np

import landingopt as lo
from landingopt.problems import amari_distance

problem = lo.problems.ICA.random(10, 10_000, rng=0)
minimiser = lo.minimize(problem, method=lo.landing_lbfgs(), tol=1e-12, rng=0).feasible_x


def amari(x):
    """Distance of the unmixing x^T from that of the minimiser; 0 up to order and signs."""
    return amari_distance(x.T, minimiser)


methods = {
    "SGD": lo.landing_sgd(step=0.1),
    "SGD, decreasing": lo.landing_sgd(),
    "SAGA": lo.landing_saga(),
    "SVRG": lo.landing_svrg(),
}
results = {
    name: lo.minimize(
        problem,
        method=method,
        stop=lo.MaxEpochs(24),
        record=lo.EveryEpoch(metrics={"amari": amari}),
        rng=1,
    )
    for name, method in methods.items()
}

print("epoch  " + "  ".join(f"{name:>15}" for name in results))
for epoch in range(0, 25, 3):
    row = (np.interp(epoch, r.trace["epoch"], r.trace["amari"]) for r in results.values())
    print(f"{epoch:5d}  " + "  ".join(f"{value:15.2e}" for value in row))
print("\nfrom the true mixing (the minimiser of f: ", end="")
print(f"{amari_distance(minimiser.T, problem.mixing):.4f})")
for name, result in results.items():
    error = amari_distance(result.feasible_x.T, problem.mixing)
    print(f"{name:>15}: {error:.4f}  in {result.seconds:.2f} s, distance {result.distance:.0e}")
