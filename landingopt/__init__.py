"""landingopt: optimization under orthogonality constraints by landing.

>>> import landingopt as lo
>>> problem = lo.problems.Procrustes.random(40, rng=0)
>>> lo.minimize(problem, rng=0).success
True
"""

from landingopt import (
    autodiff,
    directions,
    estimators,
    fields,
    moves,
    plotting,
    problems,
    searches,
    steps,
    stiefel,
)
from landingopt._compare import Comparison, compare
from landingopt._minimize import minimize
from landingopt.gradient_check import check_gradient, check_hessian
from landingopt.methods import (
    Method,
    landing,
    landing_cg,
    landing_lbfgs,
    landing_newton,
    pogo,
    pymanopt,
)
from landingopt.objectives import Euclidean, Objective, Stiefel
from landingopt.observe.record import Every, LogSpaced
from landingopt.observe.stop import (
    Distance,
    GradientNorm,
    MaxEpochs,
    MaxIterations,
    Target,
    Timeout,
)
from landingopt.observe.trace import Trace
from landingopt.result import Result
from landingopt.status import SolveError, Status

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Distance",
    "Euclidean",
    "Every",
    "GradientNorm",
    "LogSpaced",
    "MaxEpochs",
    "MaxIterations",
    "Method",
    "Objective",
    "Result",
    "SolveError",
    "Status",
    "Stiefel",
    "Target",
    "Timeout",
    "Trace",
    "autodiff",
    "check_gradient",
    "check_hessian",
    "compare",
    "directions",
    "estimators",
    "fields",
    "landing",
    "landing_cg",
    "landing_lbfgs",
    "landing_newton",
    "minimize",
    "moves",
    "plotting",
    "pogo",
    "problems",
    "pymanopt",
    "searches",
    "steps",
    "stiefel",
]
