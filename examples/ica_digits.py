"""Independent components of the digits: an f whose evaluations are dear, and what that asks of a method.

f(X) is the mean log-cosh of 1797 whitened images in 20 directions X. It has many local minima, so the
methods are compared by the gradients that they need, each to its own minimum.

    pip install ".[examples]"
    python examples/ica_digits.py
"""

import landingopt as lo

problem = lo.problems.ICA.digits(p=20)
print(problem)

for method in (lo.landing(), lo.landing_cg(), lo.landing_lbfgs(), lo.landing_newton()):
    result = lo.minimize(problem, method=method, tol=1e-8, rng=0, record=lo.Every(1000))
    print(
        f"{method.name:15s} {result.status.name}  f {result.feasible_fun:.6f}  "
        f"{result.njev:4d} gradients  {result.nhev:4d} Hessian products  {result.seconds:.2f} s"
    )
