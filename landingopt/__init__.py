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
    optimizers,
    plotting,
    problems,
    rates,
    retractions,
    samplers,
    searches,
    steps,
    stiefel,
)
from landingopt._compare import Comparison, compare
from landingopt._minimize import minimize
from landingopt.baselines.penalty import penalty
from landingopt.baselines.trivialization import trivialization
from landingopt.gradient_check import check_gradient, check_hessian
from landingopt.methods import (
    Method,
    landing,
    landing_cg,
    landing_lbfgs,
    landing_newton,
    landing_saga,
    landing_sgd,
    landing_svrg,
    pogo,
    pymanopt,
    riemannian,
)
from landingopt.objectives import Euclidean, Objective, Stiefel
from landingopt.observe.record import Every, EveryEpoch, LogSpaced
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
from landingopt.sums import FiniteSum, LinearModelSum, Stream

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Distance",
    "Euclidean",
    "Every",
    "EveryEpoch",
    "FiniteSum",
    "GradientNorm",
    "LinearModelSum",
    "LogSpaced",
    "MaxEpochs",
    "MaxIterations",
    "Method",
    "Objective",
    "Result",
    "SolveError",
    "Status",
    "Stiefel",
    "Stream",
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
    "landing_saga",
    "landing_sgd",
    "landing_svrg",
    "minimize",
    "moves",
    "optimizers",
    "penalty",
    "plotting",
    "pogo",
    "problems",
    "pymanopt",
    "rates",
    "retractions",
    "riemannian",
    "samplers",
    "searches",
    "steps",
    "stiefel",
    "trivialization",
]
