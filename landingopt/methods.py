"""The methods: presets that return frozen recipes.

A native method is one dataclass, :class:`Method`: an estimator, a field, a direction, a search and a
move. Which go together is checked where a method is made.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as part
from typing import Any, Literal

from landingopt import directions, estimators, fields, moves, searches, steps
from landingopt.estimators._common import check_base


@dataclass(frozen=True)
class Method:
    """A landing-type method, composed of its parts.

    ``lo.landing(...)`` and its kin make these; compose your own from ``lo.fields``, ``lo.steps``,
    ``lo.searches``, ``lo.moves``.

    Raises
    ------
    TypeError, ValueError
        Where parts do not go together; the message says which, why and what to do.

    Examples
    --------
    A landing with your own step rule:

    >>> import landingopt as lo
    >>> method = lo.Method(search=lo.searches.OpenLoop(lo.steps.Decay(0.1, power=0.5)))
    >>> method.name
    'Method'
    """

    search: Any
    field: Any = part(default_factory=fields.Field)
    move: Any = part(default_factory=moves.Additive)
    direction: Any = part(default_factory=directions.Steepest)
    estimator: Any = part(default_factory=estimators.Full)
    name: str = "Method"

    def __post_init__(self) -> None:
        parts = {
            "search": (self.search, "start", "lo.searches.OpenLoop(lo.steps.Constant(0.1))"),
            "field": (self.field, "start", "lo.fields.Field()"),
            "move": (self.move, "start", "lo.moves.Additive()"),
            "direction": (self.direction, "start", "lo.directions.Steepest()"),
            "estimator": (self.estimator, "start", "lo.estimators.Full()"),
        }
        for name, (recipe, verb, example) in parts.items():
            if isinstance(recipe, type) or not callable(getattr(recipe, verb, None)):
                raise TypeError(f"{name} must be a recipe such as {example}, got {recipe!r}")
        for refused, message in _REFUSALS:
            if refused(self):
                raise ValueError(message)

    @property
    def lam(self) -> float:
        """The weight of the normal term; 0 without one."""
        return float(getattr(self.field.normal, "lam", 0.0))


def _line_search(method: Method) -> bool:
    return isinstance(method.search, (searches.LineSearch, searches.Wolfe))


# Which parts go together: (refused, what - why - what to do).
_REFUSALS: list[tuple[Callable[[Method], bool], str]] = [
    (
        lambda m: (
            _line_search(m) and not (m.field.tangent == fields.PSI and m.field.normal is None)
        ),
        "LineSearch and Wolfe need the field Field(tangent=Euclidean(exact=False), normal=None): their "
        "merit measures slopes with the Euclidean-metric gradient, and the normal part is the move's; "
        "pass that field, or use OpenLoop",
    ),
    (
        lambda m: _line_search(m) and not isinstance(m.move, moves.NewtonSchulz),
        "LineSearch and Wolfe need the move NewtonSchulz(): their merit is unbounded below off the "
        "manifold, so trial points are brought back before f is evaluated; pass "
        "move=lo.moves.NewtonSchulz()",
    ),
    (
        lambda m: (
            not _line_search(m)
            and isinstance(
                m.direction,
                (directions.LBFGS, directions.ConjugateGradient, directions.Newton),
            )
        ),
        "a direction with a memory needs a search that reads f, and learns from the gradient: an open "
        "loop's steps and safe bounds are of the field itself; pass search=lo.searches.Wolfe() with "
        "the field and move of lo.landing_lbfgs(), or direction=lo.directions.Steepest()",
    ),
    (
        lambda m: _line_search(m) and getattr(m.estimator, "transforms", False),
        "LineSearch and Wolfe need the gradient of f, estimator=Full(): they compare f with the slope "
        "along the field, which Momentum and Adam change; drop the transform, or use OpenLoop (as in "
        "lo.landing(step=..., base=...) or lo.pogo(step, base=...))",
    ),
    (
        lambda m: (
            isinstance(m.move, (moves.Additive, moves.Pogo))
            and isinstance(m.field.tangent, fields.Euclidean)
            and not m.field.tangent.exact
            and not _line_search(m)
        ),
        "Euclidean(exact=False) is not tangent off the manifold, and with an Additive move or Pogo's "
        "single pass the distance can grow; use tangent=Euclidean() or Canonical(), or "
        "move=NewtonSchulz()",
    ),
    (
        lambda m: (
            isinstance(getattr(m.search, "step", None), steps.Safeguarded)
            and (m.field.normal is None or not isinstance(m.move, moves.Additive))
        ),
        "Safeguarded needs the landing field with a Penalty normal term and the Additive move: its "
        "bound is proved for X - eta Lambda(X); use the rule without Safeguarded, or that field",
    ),
]


def landing(
    step: float | Callable[[int], float] | Any | None = None,
    *,
    lam: float | None = None,
    eps: float = 0.5,
    tangent: Any = None,
    base: Any = None,
    safe: Literal["bound", "exact"] = "bound",
) -> Method:
    r"""The landing: matrix products only, attracted to the manifold.

    Without a step it is parameter-free (the recommended first choice): along
    psi = G - X sym(X^H G), with Barzilai–Borwein steps (adaptive after 100 iterations), a nonmonotone
    line search on the feasible value, and a Newton–Schulz normal step,

        X <- NS(X - eta psi(X)).

    It needs no tuning at any scale of f, takes any start of full rank (projected by Newton–Schulz)
    and goes down to rounding. With a step it is the algorithm of the papers,

        X <- X - eta Lambda(X),   Lambda(X) = skew(G X^H) X + lam X (X^H X - I),

    with eta = min(step, safe step), so that ||X^H X - I||_F <= eps throughout.

    Parameters
    ----------
    step : float, function of the iteration, or step rule, optional
        The wanted step of the papers' algorithm. A step eta along the default tangent is a step eta / 2
        of Riemannian gradient descent in the canonical metric (eta on O_p in the Euclidean metric).
    lam : float, optional
        Attraction, 1 by default; only with a step.
    eps : float
        Radius of the tube; only used with a step.
    tangent : tangent of ``lo.fields``, optional
        ``lo.fields.Canonical()`` by default, the papers'; ``lo.fields.Canonical(metric_scale=1.0)`` and
        ``lo.fields.Euclidean()`` make a step a step of Riemannian gradient descent in the metric
        they name (the table in ``lo.fields``). Only with a step.
    base : estimator, optional
        What the field is built of: ``lo.estimators.Momentum(0.9)``, ``lo.estimators.Adam()``; the
        gradient by default. Only with a step: the line search needs the gradient itself.
    safe : "bound" or "exact"
        What caps the step: the papers' bound, or the exact exit from the tube, which is never shorter
        (:class:`landingopt.steps.Safeguarded`). Only with a step.

    Returns
    -------
    Method

    Raises
    ------
    TypeError, ValueError
        ``lam``, ``tangent``, ``base`` or ``safe`` without a step, a step that is not positive, lam
        < 0, eps outside (0, 1), a tangent or base of the wrong kind.

    Notes
    -----
    A step costs, beyond the gradient: with a step, three products p^3 (square) or four n p^2
    (tall) with the default tangent, and where ``safe="exact"`` lengthens it two more; without, four
    to six.

    References
    ----------
    [AP22]; [AVGA24] algorithm 1 and the safe step; [XGA26] for the Newton–Schulz normal step.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> lo.minimize(problem, method=lo.landing(), tol=1e-10, rng=0).status.name
    'CONVERGED'
    >>> lo.minimize(problem, method=lo.landing(step=0.01, lam=1.0), rng=0).success
    True
    """
    if step is None:
        if lam is not None:
            raise ValueError(
                f"lam = {lam!r} was given without a step: the parameter-free landing has no lam (its "
                "normal step is Newton–Schulz); pass lo.landing(step=..., lam=...) for the papers' "
                "algorithm, or drop lam"
            )
        if eps != 0.5:
            raise ValueError(
                f"eps = {eps!r} was given without a step: the parameter-free landing has no tube; "
                "pass lo.landing(step=..., eps=...), or drop eps"
            )
        _refuse_without_step(tangent, base, safe)
        return Method(
            search=searches.LineSearch(),
            field=fields.Field(tangent=fields.PSI, normal=None),
            move=moves.NewtonSchulz(),
            name="landing",
        )
    lam = 1.0 if lam is None else lam
    if not (isinstance(lam, numbers.Real) and 0.0 <= lam < float("inf")):
        raise ValueError(f"lam must be a number >= 0, got {lam!r}")
    if safe not in ("bound", "exact"):
        raise ValueError(f'safe must be "bound" or "exact", got {safe!r}')
    tangent = fields.Canonical() if tangent is None else tangent
    if isinstance(tangent, type) or not callable(getattr(tangent, "coefficients", None)):
        raise TypeError(
            "tangent must be a tangent term such as lo.fields.Canonical() or lo.fields.Euclidean(), "
            f"got {tangent!r}"
        )
    return Method(
        search=searches.OpenLoop(steps.Safeguarded(as_step(step), eps, exact=safe == "exact")),
        field=fields.Field(tangent=tangent, normal=fields.Penalty(float(lam))),
        estimator=_as_estimator(base),
        name=f"landing(step={_shown(step)}, lam={lam:g}{_suffix(base)})",
    )


def _refuse_without_step(tangent: Any, base: Any, safe: str) -> None:
    reasons = {
        "tangent": (tangent is not None, tangent, "its line search needs the Euclidean gradient"),
        "base": (
            base is not None,
            base,
            "its line search compares f with the gradient of f itself",
        ),
        "safe": (safe != "bound", safe, "it has no tube"),
    }
    for name, (given, value, reason) in reasons.items():
        if given:
            raise ValueError(
                f"{name} = {value!r} was given without a step: this is the parameter-free landing, and "
                f"{reason}; pass lo.landing(step=..., {name}=...), or drop {name}"
            )


def _as_estimator(base: Any) -> Any:
    return estimators.Full() if base is None else check_base(base)


def _shown(step: Any) -> str:
    return f"{step:g}" if isinstance(step, numbers.Real) else "..."


def _suffix(base: Any) -> str:
    return "" if base is None else f", base={type(base).__name__}"


def pogo(
    step: float | Callable[[int], float] | Any, base: Any = None, *, lam: float = 0.5
) -> Method:
    r"""POGO: a tangent step, then one normal step that does not depend on its length.

        M = X - eta R(X),    X_+ = M - lam M (M^H M - I),    R(X) = skew(G X^H) X.

    Nothing is evaluated and nothing read back: no safe step, no inner loop. With lam = 1/2 the distance
    stays of the order (eta ||R||)^4, for steps with eta ||R|| below about 1; a start should lie near the
    manifold. Steps are not shortened: one that is far too long diverges, and says so. With
    ``base=Adam()`` eta ||R|| is of the order of eta, whatever the scale of f.

    Parameters
    ----------
    step : float, function of the iteration, or step rule
        A step eta is a step eta / 2 of Riemannian gradient descent in the canonical metric (eta on
        O_p in the Euclidean metric), as in ``lo.landing(step=...)``.
    base : estimator, optional
        What the field is built of: ``lo.estimators.Momentum(0.9)``, ``lo.estimators.Adam()``; the
        gradient by default.
    lam : float in (0, 1)
        Of the normal step; at 1/2 it is one Newton–Schulz pass, with quadratic convergence.

    Returns
    -------
    Method

    Raises
    ------
    TypeError, ValueError
        A step that is not positive, lam outside (0, 1), a base that is no estimator.

    Notes
    -----
    A step costs, beyond the gradient, four products p^3 (square) or six n p^2 (tall).

    References
    ----------
    [POGO].

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> method = lo.pogo(0.1, base=lo.estimators.Momentum(0.9))
    >>> method.name
    'pogo(step=0.1, base=Momentum)'
    >>> lo.minimize(problem, method=method, rng=0).success
    True
    """
    move = moves.Pogo(lam)
    shown = "" if lam == 0.5 else f", lam={lam:g}"
    return Method(
        search=searches.OpenLoop(as_step(step)),
        field=fields.Field(tangent=fields.Canonical(), normal=None),
        move=move,
        estimator=_as_estimator(base),
        name=f"pogo(step={_shown(step)}{shown}{_suffix(base)})",
    )


def _with_memory(direction: Any, search: searches.Wolfe, name: str) -> Method:
    return Method(
        search=search,
        field=fields.Field(tangent=fields.PSI, normal=None),
        move=moves.NewtonSchulz(),
        direction=direction,
        name=name,
    )


def landing_lbfgs(memory: int = 8) -> Method:
    """Landing with limited-memory BFGS directions: few gradients, no Hessian, no tuning.

    X_+ = NS(X - t H psi), psi = G - X sym(X^H G) the Riemannian gradient, H the L-BFGS matrix of the
    last ``memory`` steps, t by the weak Wolfe conditions on f(polar X), t = 1 first, NS Newton–Schulz
    passes. Value and gradient are evaluated together, once a trial; there are no separate values.

    Parameters
    ----------
    memory : int
        Pairs that are kept: 2 ``memory`` n p numbers. Where n p is beyond 1e5, 5 is faster.

    Returns
    -------
    Method

    Notes
    -----
    An iteration costs, beyond the gradient, about four products n p^2 and two passes over the pairs.
    On products of blocks the inner products are summed over the blocks; in a separable stack each matrix
    has its own pairs and step.

    References
    ----------
    Byrd, Nocedal, Schnabel, Math. Program. 63, 1994; [XGA26] for the Newton–Schulz normal step.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(20, rng=0)
    >>> result = lo.minimize(problem, method=lo.landing_lbfgs(), tol=1e-10, rng=0)
    >>> result.status.name, result.nfev == result.njev
    ('CONVERGED', True)
    """
    return _with_memory(directions.LBFGS(memory), searches.Wolfe(), "landing_lbfgs")


def landing_cg() -> Method:
    """Landing with nonlinear conjugate gradient directions: the memory of one direction.

    X_+ = NS(X - t F), F_+ = psi_+ + beta F with the hybrid of Hestenes–Stiefel and Dai–Yuan for beta, t
    by the Wolfe conditions on f(polar X).

    Returns
    -------
    Method

    Notes
    -----
    An iteration costs, beyond the gradient, about four products n p^2.

    References
    ----------
    Dai, Yuan, Ann. Oper. Res. 103, 2001; [XGA26] for the Newton–Schulz normal step.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(20, rng=0)
    >>> lo.minimize(problem, method=lo.landing_cg(), tol=1e-10, rng=0).status.name
    'CONVERGED'
    """
    return _with_memory(
        directions.ConjugateGradient(), searches.Wolfe(curvature=_CG_CURVATURE), "landing_cg"
    )


_CG_CURVATURE = 0.4


def landing_newton(memory: int = 8) -> Method:
    """Landing with truncated Newton directions: fewest iterations, where Hessian products are cheap.

    X_+ = NS(X - t F), where F solves H[F] = psi inexactly by conjugate gradients, with the Riemannian
    Hessian H[V] = P(hess f(X)[V] - V sym(X^H G)), and t is found by the Wolfe conditions on f(polar X),
    t = 1 first. L-BFGS directions lead to where the gradient is a tenth of the first one.

    Parameters
    ----------
    memory : int
        Pairs of the L-BFGS directions.

    Returns
    -------
    Method

    Notes
    -----
    Hessian products are the problem's ``hessp`` (``lo.autodiff`` derives it; ``lo.check_hessian`` tests
    it: with a wrong one the method is L-BFGS at best); without one, differences of the gradient, counted
    in ``njev``. An inner iteration costs, beyond the product, three products
    n p^2.

    References
    ----------
    [XGA26]; Nash, Sofer, Oper. Res. Lett. 9, 1990; see :class:`landingopt.directions.Newton` for more
    parameters.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(20, rng=0)
    >>> result = lo.minimize(problem, method=lo.landing_newton(), tol=1e-12, rng=0)
    >>> result.success, result.nhev > result.njev
    (True, True)
    """
    return _with_memory(directions.Newton(memory), searches.Wolfe(), "landing_newton")


def as_step(step: Any) -> Any:
    """A number, a function of the iteration or a step rule, as a step rule."""
    if isinstance(step, type):
        raise TypeError(
            f"step must be a number, a function or an instance of a rule: {step.__name__} is a class"
        )
    if hasattr(step, "start"):
        return step
    if callable(step):
        return steps.Schedule(step)
    return steps.Constant(step)


def pymanopt(name: str, **options: Any) -> Any:
    """One of pymanopt's solvers, as a method like any other.

    Parameters
    ----------
    name : str
        "SteepestDescent", "ConjugateGradient" or "TrustRegions" (which needs ``hessp``).
    **options
        Passed to pymanopt's optimizer, as ``beta_rule`` or ``Delta0``; and ``retraction="qr"`` or
        ``"polar"``. Its own stopping rules are off unless given (``min_step_size=1e-10``): the
        library's decide.

    Raises
    ------
    ValueError
        An unknown name; the closest one is named.
    TypeError
        An unknown option; the accepted ones are listed.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.pymanopt("ConjugateGradient").name
    'pymanopt ConjugateGradient'
    """
    from landingopt.baselines.pymanopt_bridge import PymanoptMethod

    return PymanoptMethod.of(name, options)
