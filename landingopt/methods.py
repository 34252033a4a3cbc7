"""The methods: presets that return frozen recipes.

A native method is one dataclass, :class:`Method`: an estimator, a field, a direction, a search and a
move. Which go together is checked where a method is made.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from dataclasses import field as part
from typing import Any, Literal

from landingopt import directions, estimators, fields, moves, retractions, searches, steps
from landingopt._parts import check_part
from landingopt.estimators._common import check_base, check_decay, is_stochastic
from landingopt.estimators.chosen import chosen_step


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
            "search": ("searches", "lo.searches.OpenLoop(lo.steps.Constant(0.1))"),
            "field": ("fields", "lo.fields.Field()"),
            "move": ("moves retractions", "lo.moves.Additive()"),
            "direction": ("directions", "lo.directions.Steepest()"),
            "estimator": ("estimators", "lo.estimators.Full()"),
        }
        for name, (rooms, example) in parts.items():
            check_part(getattr(self, name), name, rooms, f"a recipe such as {example}")
        for refused, message in _REFUSALS:
            if refused(self):
                raise ValueError(message)

    @property
    def lam(self) -> float:
        """The weight of the normal term; 0 without one."""
        return float(getattr(self.field.normal, "lam", 0.0) or 0.0)

    @property
    def stochastic(self) -> bool:
        """Does it see some terms of a finite sum at a time?"""
        return is_stochastic(self.estimator)

    def tuned(self, curvature: Callable[[], float]) -> Method:
        """The method with numbers for what is chosen at the start; itself where nothing is."""
        rule = getattr(self.search, "step", None)
        # L is of the Euclidean metric's gradient, of which a tangent may be a multiple.
        gain = fields.gain(self.field.tangent)
        step = steps.tuned(rule, lambda: gain * curvature())
        field = self.field
        first = steps.first_size(step)
        shown = f"step={first:.3g}" if step is not rule else ""
        if isinstance(field.normal, fields.Penalty) and field.normal.lam is None:
            if first is None:
                raise TypeError(
                    "Penalty(lam=None) means 1 / (2 eta) with a first step eta known at the start, and "
                    f"{rule!r} does not tell it: pass Penalty(lam)"
                )
            field = replace(field, normal=fields.Penalty(0.5 / first))
            shown += f", lam={0.5 / first:.3g}"
        if not shown:
            return self
        return replace(
            self,
            search=replace(self.search, step=step),
            field=field,
            name=f"{self.name.split('(step=')[0]}({shown.removeprefix(', ')})",
        )


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
        lambda m: _line_search(m) and isinstance(m.move, (moves.Additive, moves.Pogo)),
        "LineSearch and Wolfe need the move NewtonSchulz() or a retraction: their merit is unbounded "
        "below off the manifold, so trial points are brought back before f is evaluated; pass "
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
        lambda m: (
            isinstance(m.direction, directions.Metric)
            and not isinstance(m.search, searches.LineSearch)
        ),
        "directions.Metric is for LineSearch, whose steps are Barzilai–Borwein's: Wolfe tries the "
        "step 1 first, which a gradient does not know, and an open loop takes the metric in its field; "
        "pass search=lo.searches.LineSearch(), or field=lo.fields.Field(tangent)",
    ),
    (
        lambda m: _line_search(m) and getattr(m.estimator, "transforms", False),
        "LineSearch and Wolfe need the gradient of f, estimator=Full(): they compare f with the slope "
        "along the field, which transforms (Momentum, Adam) and minibatches change; use OpenLoop (as in "
        "lo.landing(step=..., base=...), lo.pogo(step, base=...) or lo.landing_sgd())",
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
        search=searches.OpenLoop(
            steps.Safeguarded(steps.as_rule(step), eps, exact=safe == "exact")
        ),
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
        search=searches.OpenLoop(steps.as_rule(step)),
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


def landing_sgd(
    step: float | Callable[[int], float] | Any | None = None,
    *,
    lam: float | None = None,
    eps: float = 0.5,
    batch_size: int | None = None,
    sampler: Any = None,
    momentum: float = 0.0,
    tangent: Any = None,
) -> Method:
    r"""Stochastic gradient descent by landing: the field of a minibatch's gradient.

        X <- X - eta_k (grad part of f_b at X + lam X (X^H X - I)).

    Without a step nothing is to be tuned: eta_k = 1 / (2 L_b sqrt(1 + k / 50)) along the gradient of
    the Euclidean metric, with the largest curvature L_b of a few minibatches, measured at the start, and
    lam = 1 / (2 eta_0); one step for all matrices of a stack. With a step it is the algorithm of
    [AVGA24], as in ``lo.landing(step=...)``, with lam = 1 by default and the safe step. Either way a
    step is one of Riemannian gradient descent in the Euclidean metric, as in :func:`riemannian`; the
    papers' own tangent term, half of it for tall X, is ``tangent=lo.fields.Canonical()``.

    Parameters
    ----------
    step : float, function of the iteration, or step rule, optional
        ``lo.steps.Decay``, ``Horizon``, ``Cosine``, ``StepDecay``, ... A constant one ends on a plateau.
    lam : float, optional
        Attraction, 1 by default; only with a step.
    eps : float
        Radius of the tube that the safe step keeps.
    batch_size : int, optional
        max(32, p) by default, and at most N / 32.
    sampler : sampler, optional
        ``lo.samplers.Reshuffled()`` by default.
    momentum : float in [0, 1)
        Heavy ball, of the tangent parts of the gradients; for more, ``lo.landing(step=...,
        base=lo.estimators.Adam(base=lo.estimators.MiniBatch(64)))``.
    tangent : tangent of ``lo.fields``, optional
        ``lo.fields.NearTangent()`` by default; a chosen step is divided by the multiple of the
        Euclidean-metric gradient that it is.

    Returns
    -------
    Method

    Raises
    ------
    TypeError, ValueError
        As :func:`landing`, and for a ``batch_size`` below 1. In a run: a problem that is no finite sum
        or stream, a batch_size beyond N, a gradient that is not the mean over its terms.

    Notes
    -----
    A step costs, beyond the minibatch's gradient, three products p^3 (square) or n p^2 (tall), and two
    more with momentum. Runs end after 20 epochs unless ``stop`` says otherwise (100 with ``tol``).

    References
    ----------
    [AVGA24] section 4.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(10, 5000, rng=0)
    >>> result = lo.minimize(problem, method=lo.landing_sgd(), rng=0)
    >>> result.status.name, bool(result.gradient_norm < 0.02)
    ('MAX_EPOCHS', True)
    """
    estimator = estimators.MiniBatch(batch_size, *_given(sampler))
    return _stochastic("landing_sgd", estimator, step, lam, eps, momentum, tangent)


def landing_saga(
    step: float | Callable[[int], float] | Any | None = None,
    *,
    lam: float | None = None,
    eps: float = 0.5,
    batch_size: int | None = None,
    sampler: Any = None,
    momentum: float = 0.0,
    tangent: Any = None,
) -> Method:
    """SAGA by landing: variance-reduced, with a table of gradients; a constant step converges.

    Without a step eta = 1 / (6 L_b) along the Euclidean-metric gradient and lam = 1 / (2 eta), L_b the
    largest curvature of a few minibatches, measured at the start.

    Parameters
    ----------
    step, lam, eps, batch_size, momentum, tangent
        As in :func:`landing_sgd`.
    sampler : sampler, optional
        ``lo.samplers.WithReplacement()`` by default.

    Returns
    -------
    Method

    Notes
    -----
    The table, its size and when it is refused: :class:`landingopt.estimators.Saga`. The first pass fills
    it: one epoch.

    References
    ----------
    [AVGA24] section 5.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(10, 5000, rng=0)
    >>> stop = lo.GradientNorm(rtol=1e-8) | lo.MaxEpochs(80)
    >>> lo.minimize(problem, method=lo.landing_saga(), stop=stop, rng=0).success
    True
    """
    estimator = estimators.Saga(batch_size, *_given(sampler))
    return _stochastic("landing_saga", estimator, step, lam, eps, momentum, tangent)


def landing_svrg(
    step: float | Callable[[int], float] | Any | None = None,
    *,
    lam: float | None = None,
    eps: float = 0.5,
    batch_size: int | None = None,
    sampler: Any = None,
    momentum: float = 0.0,
    tangent: Any = None,
) -> Method:
    """SVRG by landing: variance-reduced, with a full gradient now and then; a constant step converges.

    Without a step eta = 1 / (2 L_b) along the Euclidean-metric gradient and lam = 1 / (2 eta), L_b the
    largest curvature of a few minibatches, measured at the start.

    Parameters
    ----------
    step, lam, eps, batch_size, momentum, tangent
        As in :func:`landing_sgd`; ``lo.steps.AnchorBarzilaiBorwein()`` adapts the step.
    sampler : sampler, optional
        ``lo.samplers.Reshuffled()`` by default.

    Returns
    -------
    Method

    Notes
    -----
    Anchors and the loopless variant: :class:`landingopt.estimators.Svrg`.

    References
    ----------
    Johnson, Zhang, NeurIPS 2013; [AVGA24].

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(10, 5000, rng=0)
    >>> lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, rng=0).success
    True
    """
    estimator = estimators.Svrg(batch_size, *_given(sampler))
    return _stochastic("landing_svrg", estimator, step, lam, eps, momentum, tangent)


def _given(sampler: Any) -> tuple[Any, ...]:
    return () if sampler is None else (sampler,)


def _stochastic(
    name: str,
    estimator: Any,
    step: Any,
    lam: Any,
    eps: float,
    momentum: float,
    tangent: Any,
) -> Method:
    """The landing of an estimator: with the wanted step, or with the one chosen at the start."""
    rule: Any = chosen_step(estimator)
    tangent = fields.NearTangent() if tangent is None else tangent
    if check_decay(
        "momentum", momentum
    ):  # a sum of old gradients' normal parts would drive the iterates apart
        estimator = estimators.Momentum(momentum, base=estimators.Tangent(base=estimator))
    if isinstance(step, steps.AnchorBarzilaiBorwein):
        if name != "landing_svrg":
            raise ValueError(
                f"AnchorBarzilaiBorwein steps are of anchors, which {name} has not; use "
                "lo.landing_svrg(), or another step"
            )
        if lam is None:
            step, rule = None, step
    if step is not None:
        method = landing(step=step, lam=lam, eps=eps, base=estimator, tangent=tangent)
        return replace(method, name=f"{name}(step={_shown(step)}, lam={method.lam:g})")
    if lam is not None:
        raise ValueError(
            f"lam = {lam!r} was given without a step: without one lam is 1 / (2 eta), of the step "
            f"chosen at the start; pass lo.{name}(step=..., lam=...), or drop lam"
        )
    return Method(
        search=searches.OpenLoop(steps.Safeguarded(_shortened(rule, estimator), eps)),
        field=fields.Field(tangent, fields.Penalty(None)),
        estimator=estimator,
        name=name,
    )


def _shortened(rule: Any, estimator: Any) -> Any:
    """A rule that is chosen at the start, where momentum multiplies its steps in the long run."""
    while hasattr(estimator, "base"):
        if isinstance(estimator, estimators.Momentum):
            share = 1.0 - estimator.beta
            if isinstance(rule, steps.AnchorBarzilaiBorwein):
                rule = replace(rule, cap=rule.cap * share)
            rule = replace(rule, factor=rule.factor * share)
        estimator = estimator.base
    return rule


def riemannian(
    retraction: Any = None,
    *,
    step: float | Callable[[int], float] | Any | None = None,
    search: Any = None,
    estimator: Any = None,
    tangent: Any = None,
) -> Method:
    """Riemannian gradient descent: the same steps, with a retraction for a move.

        X <- Retr_X(-eta grad f(X)),

    with grad f of any estimator: ``MiniBatch`` makes it R-SGD, ``Saga`` R-SAGA, ``Svrg`` R-SVRG. The
    landing's counterparts differ in the move alone.

    Parameters
    ----------
    retraction : retraction, optional
        ``lo.retractions.QR()`` by default; ``CholeskyQR``, ``Polar``, ``Cayley``, ``Exponential``.
    step : float, function of the iteration, or step rule, optional
        Without one it is chosen at the start as in :func:`landing_svrg`: 1 / (2 L_b); of ``Saga``
        1 / (6 L_b), of ``MiniBatch`` decreasing as in :func:`landing_sgd`; over the multiple of the
        Euclidean-metric gradient that ``tangent`` is, 2 for ``Canonical(1.0)``.
    search : search, optional
        In place of steps: ``lo.searches.LineSearch()`` takes Barzilai–Borwein steps with a nonmonotone
        search on f, ``lo.searches.LineSearch(memory=0.0)`` is Armijo's.
    estimator : estimator, optional
        ``lo.estimators.Full()`` by default. Inside ``Momentum`` say ``base=Tangent(base=...)``, as the
        landing's presets do.
    tangent : tangent of ``lo.fields``, optional
        The Euclidean-metric gradient G - X sym(X^H G) by default; ``lo.fields.Canonical(1.0)`` is the
        canonical metric's. With a search it is a direction, :class:`landingopt.directions.Metric`.

    Returns
    -------
    Method

    Raises
    ------
    TypeError, ValueError
        A part of the wrong kind, a step that is not positive, a step and a search.

    References
    ----------
    [AMS08] chapter 4; Bonnabel, IEEE Trans. Automat. Control 58, 2013, for the stochastic one; Zhang,
    Reddi, Sra, NeurIPS 2016, for R-SVRG.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(10, 5000, rng=0)
    >>> method = lo.riemannian(lo.retractions.Polar(), estimator=lo.estimators.Svrg())
    >>> lo.minimize(problem, method=method, tol=1e-6, rng=0).success
    True
    """
    retraction = retractions.QR() if retraction is None else retraction
    example = "one such as lo.retractions.QR() or lo.retractions.Polar()"
    check_part(retraction, "retraction", "retractions", example)
    estimator = estimators.Full() if estimator is None else check_base(estimator, "estimator")
    if search is not None and step is not None:
        raise ValueError(
            f"step = {step!r} was given with a search, which chooses its steps: drop one of them (its "
            "first trials are lo.searches.LineSearch(guess=...))"
        )
    if search is None:
        search = searches.OpenLoop(
            _shortened(chosen_step(estimator), estimator) if step is None else steps.as_rule(step)
        )
    check_part(search, "search", "searches", "a search such as lo.searches.LineSearch()")
    tangent = fields.PSI if tangent is None else fields.check_tangent(tangent)
    direction: Any = directions.Steepest()
    if not isinstance(search, searches.OpenLoop):
        # On the manifold these are the Euclidean-metric gradient, which the search measures slopes with.
        if not isinstance(tangent, (fields.Euclidean, fields.NearTangent)):
            direction = directions.Metric(tangent)
        tangent = fields.PSI
    name = type(retraction).__name__
    kind = "" if isinstance(search, searches.OpenLoop) else f", {type(search).__name__}"
    return Method(
        search=search,
        field=fields.Field(tangent, normal=None),
        move=retraction,
        direction=direction,
        estimator=estimator,
        name=f"riemannian({name}{kind}{_suffix_of(estimator)})",
    )


def _suffix_of(estimator: Any) -> str:
    return "" if estimator == estimators.Full() else f", {type(estimator).__name__}"


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
