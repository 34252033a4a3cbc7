"""The command ``landingopt rates``; ``landingopt.cli`` registers it.

What belongs to the command line is imported when the command runs: the command line imports this module.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from landingopt import methods, steps
from landingopt.rates import catalogue, laws
from landingopt.rates.evidence import Evidence, evidence_table
from landingopt.rates.experiment import check, check_trace
from landingopt.rates.judge import Verdict
from landingopt.rates.report import RateReport

_LAWS: dict[str, laws.Law] = {
    "one-over-t": laws.OneOverT(),
    "one-over-sqrt-t": laws.OneOverSqrtT(),
    "log-over-sqrt-t": laws.LogOverSqrtT(),
    "bounded": laws.Bounded(),
    "quadratic": laws.Quadratic(),
}
_DTYPES = ("float64", "float32", "complex128", "complex64")


# Beside those of `landingopt methods`: name -> (step or None -> method).
_OWN: dict[str, Callable[[Any], Any]] = {
    "landing-sgd-horizon": lambda step: methods.landing_sgd(steps.Horizon(step or 4.0, 1)),
}

_EXIT = {Verdict.CONSISTENT: 0, Verdict.REJECTED: 1, Verdict.INCONCLUSIVE: 3}

SHORT_HELP = "Does a method converge at the rate that theory promises?"
EPILOG = """\b
Examples:
  landingopt rates
  landingopt rates --problem ica --method landing-sgd --out sgd.png
  landingopt rates --problem sampled-pca --method landing-svrg --expect one-over-t
  landingopt rates --problem ica --method landing-sgd --step 0.1 --expect one-over-t
  landingopt rates --trace my_run.csv --expect one-over-t --reference-value 12.5
  landingopt rates --all --quick
  landingopt rates --calibrate --problems 200 --csv errors.csv

\b
A trace is a CSV file with the columns iteration, gradient_norm and, where known, distance (or
infeasibility), feasible_fun (or fun) and step, as `landingopt solve --trace` writes them.
"""

_Problem = Annotated[
    str | None,
    typer.Option(metavar=f"[{'|'.join(catalogue.PROBLEMS)}]", help="[default: procrustes]"),
]
_Method = Annotated[
    str | None,
    typer.Option(
        help=f"One of `landingopt methods`, or {', '.join(_OWN)} (--step: eta_0 of eta_0 / sqrt T). "
        " [default: landing-step]"
    ),
]
_Step = Annotated[
    float | None,
    typer.Option(
        help="By default half of the largest stable one, or as the method chooses at the start."
    ),
]


def rates(
    problem: _Problem = None,
    p: Annotated[
        int | None, typer.Option("--p", min=1, help="Columns of x.  [default: 10]")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Rows of x.  [default: p; PCA: 5 p]")
    ] = None,
    method: _Method = None,
    step: _Step = None,
    lam: Annotated[
        float | None, typer.Option(help="Of landing-step and the stochastic ones.")
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{'|'.join(_LAWS)}|linear:FACTOR]", help="By default the method's own law."
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, help="Iterations of the longest run.  [default: 8192]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data, the start and the draws.")] = 0,
    dtype: Annotated[
        str, typer.Option(metavar=f"[{'|'.join(_DTYPES)}]", help="Of the data, or of the trace.")
    ] = "float64",
    reference_value: Annotated[
        float | None, typer.Option(help="f*, where the problem does not know it.")
    ] = None,
    out: Annotated[
        str, typer.Option(help='The figure (.png, .pdf, .svg); "none" for none.')
    ] = "rates.png",
    trace: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.csv",
            help="Judge the trace of a run instead; given several times, of runs with several seeds.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every method against its law; exact laws; certificates.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure how often the verdict is wrong.")
    ] = False,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Of --calibrate.  [default: 1000]")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Of --all and --calibrate: about a minute.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table of --all or --calibrate as CSV.")
    ] = None,
) -> None:
    """Does a method converge at the rate that theory promises?

    Runs the method on a random problem and holds the means of ||grad f||^2 and of ||X^H X - I||^2 / 4
    against its law; before that the gradient is checked against differences of f, and the minibatch
    estimates over every outcome of their draws.

    Exit code 0 if CONSISTENT, 1 if REJECTED, 3 if INCONCLUSIVE (2: a mistake in what was asked for).
    With --all: 1 or 3 where a method is not CONSISTENT with its theorem, 1 where an exact law or a
    certificate is broken.
    """
    from landingopt.cli import _one_line_errors, _writable

    with _one_line_errors():
        mode = _mode(trace, everything, calibrate)
        _refuse_ignored(
            mode,
            {
                "--problem": problem, "--p": p, "--n": n, "--method": method, "--step": step,
                "--lam": lam, "--horizon": horizon, "--expect": expect,
                "--reference-value": reference_value, "--problems": problems, "--quick": quick,
                "--csv": csv,
            },
        )  # fmt: skip
        if csv is not None:
            _writable(csv)
        if mode == "--all":
            raise typer.Exit(_all(quick, seed, csv))
        if mode == "--calibrate":
            _calibrate(problems or 1000, quick, seed, csv)
            return
        law = None if expect is None else _law(expect)
        _known(dtype, _DTYPES, "dtype")
        figure = None if out.lower() == "none" else _writable(Path(out), figure=True)
        with _as_user_errors():
            if trace:
                report = _of_traces(trace, law, dtype, reference_value)
            else:
                name = _known(problem or "procrustes", catalogue.PROBLEMS, "problem")
                stated = catalogue.PROBLEMS[name](p or 10, n, np.dtype(dtype), seed)
                report = check(
                    stated,
                    _chosen(method or "landing-step", stated, step, lam),
                    expect=law,
                    horizon=horizon or 2**13,
                    rng=seed,
                    reference_value=reference_value,
                )
    typer.echo(str(report))
    if figure is not None:
        report.plot(figure)
        typer.echo(f"\nfigure   {figure}")
    raise typer.Exit(_EXIT[report.verdict])


def _of_traces(
    trace: list[Path], law: laws.Law | None, dtype: str, reference_value: float | None
) -> RateReport:
    from landingopt.cli import UserError

    if law is None:
        raise UserError(f"--trace needs --expect: one of {', '.join(_LAWS)}")
    return check_trace(
        trace if len(trace) > 1 else trace[0],
        law,
        reference_value=reference_value,
        unit_roundoff=float(np.finfo(dtype).eps),
    )


@contextmanager
def _as_user_errors() -> Iterator[None]:
    """What the library refuses is a mistake in what was asked for."""
    from landingopt.cli import UserError, _first_line

    try:
        yield
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(_first_line(error) or type(error).__name__) from None


def _mode(trace: Any, everything: bool, calibrate: bool) -> str:
    from landingopt.cli import UserError

    given = {"--trace": bool(trace), "--all": everything, "--calibrate": calibrate}
    modes = [name for name, on in given.items() if on]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} do not go together: one at a time")
    return modes[0] if modes else _CHECK


_CHECK = "a check"
_OWNERS = {
    "--expect": (_CHECK, "--trace"),
    "--reference-value": (_CHECK, "--trace"),
    "--problems": ("--calibrate",),
    "--quick": ("--all", "--calibrate"),
    "--csv": ("--all", "--calibrate"),
}


def _refuse_ignored(mode: str, options: dict[str, Any]) -> None:
    """Options of another mode."""
    from landingopt.cli import UserError

    for name, value in options.items():
        owners = _OWNERS.get(name, (_CHECK,))
        if value is not None and value is not False and mode not in owners:
            raise UserError(f"{name} belongs to {' and '.join(owners)}, not to {mode}")


def _law(text: str) -> laws.Law:
    """one-over-t, ..., or linear:0.99."""
    from landingopt.cli import UserError

    kind, _, factor = text.partition(":")
    if kind != "linear":
        return _LAWS[_known(text, _LAWS, "law")]
    try:
        return laws.Linear(float(factor))
    except ValueError:
        raise UserError(
            f"--expect {text}: linear needs a factor per iteration between 0 and 1, as linear:0.99"
        ) from None


def _known(name: str, known: Any, what: str) -> str:
    from landingopt.cli import UserError

    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
    raise UserError(f"unknown {what} {name!r}; {hint}")


def _chosen(name: str, problem: Any, step: float | None, lam: float | None) -> Any:
    """The method of that name; a step that it needs is chosen for the problem."""
    from landingopt.cli import _STEPPED, METHODS, UserError

    _known(name, [*METHODS, *_OWN], "method")
    if lam is not None and (name not in _STEPPED or name == "pogo"):
        raise UserError(f"--lam belongs to landing-step and the stochastic ones, not to {name}")
    if step is not None and name not in (*_STEPPED, *_OWN):
        raise UserError(f"{name} takes no --step")
    if name in _OWN:
        method = _OWN[name](step)
    elif step is None and name == "landing-step":
        method = catalogue.landing_step(problem, **({} if lam is None else {"lam": lam}))
    elif step is None and name == "pogo":
        method = methods.pogo(catalogue.default_step(problem))
    else:
        method = METHODS[name].make(step, lam)
    if getattr(method, "stochastic", False) and not hasattr(problem, "n_terms"):
        raise UserError(
            f"{name} draws terms of a finite sum: --problem procrustes-sum, sampled-pca or ica"
        )
    return method


# -- all methods, and the errors of the verdict ---------------------------------------------------


def _all(quick: bool, seed: int, csv: Path | None) -> int:
    """The catalogue, the exact laws and the certificates; the exit code."""
    from landingopt.cli import _on_terminal
    from landingopt.rates.certificates import certify
    from landingopt.rates.exact import check_exact_laws

    rows = catalogue.run(quick, seed, progress=_on_terminal())
    typer.echo(f"{catalogue.table(rows)}\n\nExact laws.\n")
    exact: Sequence[Evidence] = check_exact_laws(quick=quick, rng=seed)
    typer.echo(evidence_table(exact))
    typer.echo("\nCertificates: every iterate of a run against the landing's theorem.")
    certificates = [
        certify(problem, method, rng=seed) for problem, method in catalogue.certified(quick, seed)
    ]
    for certificate in certificates:
        typer.echo(f"\n{certificate}")
    if csv is not None:
        catalogue.write_csv(rows, csv)
        typer.echo(f"\ntable    {csv}")
    broken = [row for row in rows if row.holds is False]
    if not (all(exact) and all(certificates)):
        return 1
    if not broken:
        return 0
    return 1 if any(row.verdict == str(Verdict.REJECTED) for row in broken) else 3


def _calibrate(problems: int, quick: bool, seed: int, csv: Path | None) -> None:
    from landingopt.cli import _say
    from landingopt.rates import calibrate

    found = calibrate.study(problems, quick=quick, rng=seed, say=_say)
    typer.echo(calibrate.table(found))
    if csv is not None:
        calibrate.write_csv(found, csv)
        typer.echo(f"\ntable    {csv}")
