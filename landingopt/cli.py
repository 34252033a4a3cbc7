"""The command ``landingopt``: a comparison at a glance, and a solver for problems in a script."""

from __future__ import annotations

import difflib
import importlib.machinery
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import landingopt as lo
from landingopt import _inputs, _xp
from landingopt._compare import Comparison, compare, problem_name
from landingopt.figures import command as _figures
from landingopt.problems import Procrustes
from landingopt.rates import command as _rates
from landingopt.result import Result
from landingopt.table import _power

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the command ``landingopt``."""
    app(prog_name="landingopt")


class UserError(Exception):
    """A mistake in what was asked for; shown as one line on standard error, exit code 2."""


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        typer.echo(f"landingopt: error: {error}", err=True)
        raise typer.Exit(2) from None


# -- the methods by name ----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A method that the command line knows.

    Attributes
    ----------
    summary : str
        What it is, and what it guarantees or when to use it.
    make : callable
        (step, lam) -> method.
    iterations : int
        Its limit in ``landingopt procrustes``, so that a method that stalls does not hold up all.
    """

    summary: str
    make: Callable[[float | None, float | None], Any]
    iterations: int = 10_000


def _landing_step(step: float | None, lam: float | None) -> Any:
    step = _needed("landing-step needs --step ETA (and takes --lam)", step)
    return lo.landing(step=step, lam=0.5 / step if lam is None else lam)


def _pogo(step: float | None, lam: float | None) -> Any:
    step = _needed("pogo needs --step ETA", step)
    if lam is not None:
        raise UserError(
            "--lam belongs to --method landing-step: pogo's normal step is one full pass"
        )
    return lo.pogo(step)


def _needed(what: str, step: float | None) -> float:
    if step is None:
        raise UserError(f"{what}; the method landing needs neither")
    if not 0.0 < step < math.inf:
        raise UserError(f"--step must be positive and finite, got {step:g}")
    return step


def _retracted(retraction: Any) -> Callable[[float | None, float | None], Any]:
    def make(step: float | None, lam: float | None) -> Any:
        if lam is not None:
            raise UserError("--lam is not of retraction methods, which never leave the manifold")
        return lo.riemannian(retraction, step=step)

    return make


def _pymanopt(name: str) -> Callable[[float | None, float | None], Any]:
    return lambda step, lam: lo.pymanopt(name)


METHODS = {
    "landing": Entry(
        "parameter-free landing: the first choice, at any scale of f, accurate to rounding",
        lambda step, lam: lo.landing(),
    ),
    "landing-lbfgs": Entry(
        "L-BFGS directions: few gradients and no Hessian; for dear objectives",
        lambda step, lam: lo.landing_lbfgs(),
    ),
    "landing-cg": Entry(
        "conjugate gradient directions: remembers one direction; for very large x",
        lambda step, lam: lo.landing_cg(),
    ),
    "landing-newton": Entry(
        "truncated Newton directions: fewest iterations; where Hessian products (hessp) are cheap",
        lambda step, lam: lo.landing_newton(),
    ),
    "landing-step": Entry(
        "the papers' landing, fixed --step and --lam: cheapest iteration, distance kept under 1/2",
        _landing_step,
        5_000,
    ),
    "pogo": Entry(
        "a fixed --step, then one normal step: on the manifold to rounding once the steps are short",
        _pogo,
        5_000,
    ),
    "landing-sgd": Entry(
        "minibatches of a finite sum; decreasing steps chosen at the start, or --step",
        lambda step, lam: lo.landing_sgd(step, lam=lam),
    ),
    "landing-saga": Entry(
        "variance-reduced with a table of gradients; the step is chosen at the start, or --step",
        lambda step, lam: lo.landing_saga(step, lam=lam),
    ),
    "landing-svrg": Entry(
        "variance-reduced with full gradients now and then; the step as for landing-saga",
        lambda step, lam: lo.landing_svrg(step, lam=lam),
    ),
    "riemannian-qr": Entry(
        "gradient descent with the QR retraction; the step is chosen at the start, or --step",
        _retracted(lo.retractions.QR()),
        5_000,
    ),
    "riemannian-choleskyqr": Entry(
        "the same point by Cholesky: the cheapest retraction for tall x",
        _retracted(lo.retractions.CholeskyQR()),
        5_000,
    ),
    "riemannian-polar": Entry(
        "with the projection, by Newton-Schulz: matrix products only",
        _retracted(lo.retractions.Polar()),
        5_000,
    ),
    "riemannian-cayley": Entry(
        "with Cayley's retraction: the inverse of a p x p matrix",
        _retracted(lo.retractions.Cayley()),
        5_000,
    ),
    "riemannian-exponential": Entry(
        "along geodesics: matrix exponentials",
        _retracted(lo.retractions.Exponential()),
        5_000,
    ),
    "riemannian-search": Entry(
        "QR with Barzilai-Borwein steps and a line search: gradient descent at full strength",
        lambda step, lam: lo.riemannian(search=lo.searches.LineSearch()),
    ),
    "riemannian-armijo": Entry(
        "QR with Barzilai-Borwein first trials and Armijo's monotone search",
        lambda step, lam: lo.riemannian(search=lo.searches.LineSearch(memory=0.0)),
    ),
    "riemannian-canonical": Entry(
        "Cayley's retraction, the canonical metric and Barzilai-Borwein steps with a line search",
        lambda step, lam: lo.riemannian(
            lo.retractions.Cayley(),
            search=lo.searches.LineSearch(),
            tangent=lo.fields.Canonical(metric_scale=1.0),
        ),
    ),
    "trivialization": Entry(
        "x as an exponential of a skew matrix, which SciPy's L-BFGS-B moves: dear derivatives",
        lambda step, lam: lo.trivialization(),
        5_000,
    ),
    "trivialization-cayley": Entry(
        "with Cayley's map, and a base that moves every 50 iterations: cheaper derivatives",
        lambda step, lam: lo.trivialization("cayley", dynamic=50),
        5_000,
    ),
    "penalty": Entry(
        "f + lam ||x^T x - I||^2 by SciPy's L-BFGS-B (--lam, 1 by default): never quite orthogonal",
        lambda step, lam: lo.penalty(1.0 if lam is None else lam),
        5_000,
    ),
    "pymanopt-sd": Entry(
        "pymanopt's steepest descent: a baseline with retractions; slow where ill-conditioned",
        _pymanopt("SteepestDescent"),
        2_000,
    ),
    "pymanopt-cg": Entry(
        "pymanopt's conjugate gradients: the usual baseline; its line search on f stalls near 1e-8",
        _pymanopt("ConjugateGradient"),
        2_000,
    ),
    "pymanopt-tr": Entry(
        "pymanopt's trust regions: accurate; few iterations, many Hessian products, needs hessp",
        _pymanopt("TrustRegions"),
        2_000,
    ),
}


def _entry(name: str) -> Entry:
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(METHODS)}"
    raise UserError(f"unknown method {name!r}; {hint} (`landingopt methods` lists them all)")


@app.command()
def methods() -> None:
    """List the methods, and when to use each."""
    width = max(map(len, METHODS))
    for name, entry in METHODS.items():
        typer.echo(f"{name.ljust(width)}  {entry.summary}")


# -- procrustes -------------------------------------------------------------------------------


class DType(str, Enum):
    """Precision of the data."""

    float64 = "float64"
    float32 = "float32"
    complex128 = "complex128"
    complex64 = "complex64"


class Device(str, Enum):
    """Where the arrays live."""

    cpu = "cpu"
    cuda = "cuda"


_ON_CPU = "landing,landing-lbfgs,landing-newton,landing-step,pymanopt-sd,pymanopt-cg,pymanopt-tr"
_ON_CUDA = "landing,landing-step"
_RETRACTED = tuple(
    f"riemannian-{name}" for name in ("qr", "choleskyqr", "polar", "cayley", "exponential")
)
_STEPPED = ("landing-step", "pogo", "landing-sgd", "landing-saga", "landing-svrg", *_RETRACTED)


@app.command(
    short_help="Compare methods on a problem whose optimum is known.",
    epilog="""\b
Examples:
  landingopt procrustes
  landingopt procrustes --p 100 --tol 1e-8 --repeats 5 --out p100.pdf
  landingopt procrustes --p 16 --stack 1000 --methods landing,landing-step
  landingopt procrustes --p 40 --n 200 --dtype float32 --csv traces.csv
""",
)
def procrustes(
    p: Annotated[int, typer.Option("--p", min=1, help="Columns of x.")] = 40,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Rows of x; p by default.")] = None,
    stack: Annotated[int | None, typer.Option(min=1, help="How many problems at once.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data and of the start.")] = 0,
    dtype: Annotated[DType, typer.Option(help="Precision of the data.")] = DType.float64,
    device: Annotated[Device, typer.Option(help="cuda needs CuPy and a GPU.")] = Device.cpu,
    tol: Annotated[
        float, typer.Option(min=0.0, help="Gradient norm to reach, relative to the first one.")
    ] = 1e-10,
    methods: Annotated[
        str | None,
        typer.Option(help=f"Names, comma separated.  [default: {_ON_CPU}; on cuda {_ON_CUDA}]"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each method.")] = 3,
    max_iterations: Annotated[
        int | None,
        typer.Option(min=0, help="For all methods; by default each has a limit of its own."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds for one run.")] = 10.0,
    out: Annotated[
        str, typer.Option(help='The figure (.png, .pdf, .svg); "none" for none.')
    ] = "procrustes.png",
    csv: Annotated[Path | None, typer.Option(help="Write the traces as CSV.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write table and traces as JSON.")] = None,
    progress: Annotated[
        bool | None, typer.Option(help="A progress bar; by default on a terminal.")
    ] = None,
) -> None:
    """Compare methods on min ||X A - B||_F^2 with Gaussian A and B, where the optimum is known.

    Exit code 0 if "landing" (or, without it, the best method) has met the tolerance, else 1.

    The step of landing-step and pogo is eta = 1/(s1 + s2), with the two largest singular values of
    B A^H: half of the largest stable step, since near the optimum the error of the pair (i, j) is
    multiplied by 1 - eta (s_i + s_j) in each iteration. (Complex: 1/(2 s1); a wide x:
    1/(2 (||A||^2 + s1)), a bound; a stack: the smallest of its steps.) The lam of landing-step is
    1/(2 eta), where the normal part of the step is a Newton-Schulz iteration.
    """
    with _one_line_errors():
        default = _ON_CUDA if device is Device.cuda else _ON_CPU
        names = _names(default if methods is None else methods)
        figure = None if out.lower() == "none" else _writable(Path(out), figure=True)
        for path in (csv, json):
            if path is not None:
                _writable(path)
        problem = _procrustes(p, n, stack, seed, dtype, device)
        chosen = _chosen(names, problem)
        limits = {name: max_iterations or METHODS[name].iterations for name in names}
        if max_iterations == 0:
            limits = dict.fromkeys(names, 0)
        typer.echo(f"{problem_name(problem)}, seed {seed}, {device.value}")
        comparison = compare(
            problem,
            chosen,
            repeats=repeats,
            stop={name: _rule(tol, limit, timeout, problem) for name, limit in limits.items()},
            rng=seed,
            progress=_on_terminal() if progress is None else progress,
        )
        typer.echo(f"\n{comparison.table()}\n")
        _summary(comparison)
        _write(comparison, figure, csv, json)
    rows = {row["method"]: row for row in comparison.rows()}
    deciding = rows["landing"] if "landing" in rows else comparison.rows()[0]
    raise typer.Exit(0 if deciding["success"] else 1)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--methods names none; for example --methods landing,pymanopt-cg")
    for name in names:
        _entry(name)
    return list(dict.fromkeys(names))


def _chosen(names: list[str], problem: Procrustes) -> dict[str, Any]:
    step = procrustes_step(problem)
    return {name: _entry(name).make(step if name in _STEPPED else None, None) for name in names}


def procrustes_step(problem: Procrustes) -> float:
    """Half of the largest stable step of the landing on a Procrustes problem.

    Square and tall x, with the singular values s_1 >= s_2 >= ... of B A^H and the weight w of f:
    1 / (w (s_1 + s_2)), for complex data 1 / (2 w s_1). For a wide x, where ||x A|| varies, the
    bound 1 / (2 w (||A||_2^2 + s_1)). For a stack the smallest of its matrices' steps.

    References
    ----------
    Near the optimum, skew coordinates (i, j) are multiplied by
    1 - eta w (s_i + s_j), directions that leave the span of x by 1 - eta w s_i.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> A, B = np.eye(3), np.diag([3.0, 2.0, 1.0])
    >>> procrustes_step(lo.problems.Procrustes(A, B))
    0.2
    """
    A, B = _xp.to_host(problem.A), _xp.to_host(problem.B)
    wide = np.complex128 if A.dtype.kind == "c" else np.float64
    A, B = A.astype(wide), B.astype(wide)
    s = np.linalg.svd(B @ np.conj(A.mT), compute_uv=False)
    if problem.shape[-2] < problem.shape[-1]:
        rate = 2.0 * (np.linalg.norm(A, 2, axis=(-2, -1)) ** 2 + s[..., 0])
    elif A.dtype.kind == "c":
        rate = 2.0 * s[..., 0]
    else:
        rate = s[..., :2].sum(axis=-1)
    return float(1.0 / (problem.weight * np.max(rate)))


def _procrustes(
    p: int, n: int | None, stack: int | None, seed: int, dtype: DType, device: Device
) -> Procrustes:
    on_cuda = _cupy() if device is Device.cuda else None
    problem = Procrustes.random(
        p, n, stack=() if stack is None else (stack,), rng=seed, dtype=np.dtype(dtype.value)
    )
    if on_cuda is None:
        return problem
    return Procrustes(on_cuda.asarray(problem.A), on_cuda.asarray(problem.B))


def _cupy() -> Any:
    try:
        import cupy
    except ImportError:
        raise UserError(
            '--device cuda needs CuPy: pip install "landingopt[cuda12]" (or [cuda13])'
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's errors are not importable where it found no driver
        raise UserError(f"CuPy is installed but finds no CUDA device: {error}") from None
    if not count:
        raise UserError("CuPy is installed but finds no CUDA device")
    return cupy


def _rule(tol: float, iterations: int, seconds: float, problem: Procrustes) -> Any:
    """The library's default rule with our limits."""
    unit, p = _xp.unit_roundoff(problem.like), min(problem.shape[-2:])
    landed = lo.Distance(max(1e-8, 4.0 * unit * math.sqrt(p)))
    return (lo.GradientNorm(rtol=tol) & landed) | lo.MaxIterations(iterations) | lo.Timeout(seconds)


def _summary(comparison: Comparison) -> None:
    component = lo.stiefel.component(comparison.x0)
    where = ""
    if isinstance(component, int):
        where = f", in the component det x = {component:+d} of the start"
    elif component is not None:
        where = ", each in the component of its start"
    typer.echo(
        f"optimum  f* = {comparison.reference_value:.12g} ({comparison.reference_source}{where})"
    )
    best = comparison.rows()[0]
    if best["method"] in comparison.results:
        typer.echo(
            f"best     {best['method']}: f - f* = {best['gap']:.1e}, relative "
            f"{best['relative_gap']:.1e}; distance {best['distance']:.1e}"
        )


def _write(
    comparison: Comparison, figure: Path | None, csv: Path | None, json: Path | None
) -> None:
    if figure is not None and comparison.results:
        comparison.plot(figure)
        typer.echo(f"figure   {figure}")
    if csv is not None:
        comparison.to_csv(csv)
        typer.echo(f"traces   {csv}")
    if json is not None:
        comparison.to_json(json)
        typer.echo(f"data     {json}")


def _writable(path: Path, *, figure: bool = False) -> Path:
    """The path, once it is clear that it can be written: before the runs, not after them."""
    if path.is_dir() or not path.parent.is_dir():
        what = (
            "is a folder" if path.is_dir() else f"needs the folder {path.parent}, which is missing"
        )
        raise UserError(f"{path} {what}")
    if figure and path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--out {path}: the figure's suffix must be .png, .pdf or .svg")
    return path


def _on_terminal() -> bool:
    return sys.stderr.isatty()


# -- solve ------------------------------------------------------------------------------------


@app.command(
    short_help="Solve the problem that a script defines.",
    epilog="""\b
Examples:
  landingopt solve my_problem.py:problem --tol 1e-10 --out x.npy
  landingopt solve my_problem.py:make_problem --component both
  landingopt solve my_problem.py --method landing-step --step 0.01 --trace trace.csv

\b
where my_problem.py has, for instance:
  import landingopt as lo
  problem = lo.problems.PCA.random(200, 10, rng=0)
""",
)
def solve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SCRIPT.py:NAME",
            help="A problem, a pymanopt.Problem, or a function without arguments that returns one; "
            "NAME is 'problem' by default.",
        ),
    ],
    method: Annotated[str, typer.Option(help="One of `landingopt methods`.")] = "landing",
    step: Annotated[
        float | None,
        typer.Option(help="Of landing-step, pogo, riemannian-... and the stochastic ones."),
    ] = None,
    lam: Annotated[
        float | None, typer.Option(help="Of landing-step (1/(2 step) if left out) and penalty (1).")
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(min=0.0, help="Gradient norm to reach, relative to the first one."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.0, help="At most so many, with the stochastic methods.  [default: 20]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random start.")] = 0,
    component: Annotated[
        str | None, typer.Option(metavar="[both|+1|-1]", help="For square x: sign of det x.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the feasible solution: .npy, or .npz for several blocks."),
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write the trace as CSV.")] = None,
    progress: Annotated[
        bool | None, typer.Option(help="A progress bar; by default on a terminal.")
    ] = None,
) -> None:
    """Solve the problem that a Python script defines, and print the result.

    The script is run as a module would be imported. Exit code 0 if solved, else 1.
    """
    with _one_line_errors():
        stepped = method in _STEPPED
        if not (step is None or stepped) or not (lam is None or stepped or method == "penalty"):
            raise UserError(
                "--step and --lam belong to --method landing-step and the stochastic ones (only --step "
                f"to pogo and riemannian-..., only --lam to penalty); got {method}"
            )
        entry = _entry(method)
        for path in (out, trace):
            if path is not None:
                _writable(path)
        sign = _component(component)
        problem = _problem(target)
        try:
            chosen = entry.make(step, lam)
        except (TypeError, ValueError) as error:
            raise UserError(_first_line(error)) from None
        stop = None
        if epochs is not None:
            stop = lo.GradientNorm(rtol=1e-6 if tol is None else tol) | lo.MaxEpochs(epochs)
        try:
            result = lo.minimize(
                problem,
                method=chosen,
                tol=tol if stop is None else None,
                stop=stop,
                rng=seed,
                component=sign,
                progress=_on_terminal() if progress is None else progress,
                on_failure="return",
            )
        except Exception as error:
            raise UserError(_said(error, target)) from None
        typer.echo(repr(result))
        if out is not None:
            typer.echo(f"solution   {_save(result, out)}")
        if trace is not None:
            result.trace.to_csv(trace)
            typer.echo(f"trace      {trace}")
    raise typer.Exit(0 if result.success else 1)


def _component(text: str | None) -> Any:
    if text in (None, "both"):
        return text
    if text in ("+1", "1", "-1"):
        return int(text)
    raise UserError(f"--component must be both, +1 or -1, got {text!r}")


def _problem(target: str) -> Any:
    """The problem that SCRIPT.py:NAME means."""
    text, _, name = target.rpartition(":")
    if not text or not name.isidentifier():
        text, name = target, "problem"
    path = Path(text)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    module = _imported(path)
    if not hasattr(module, name):
        own = [key for key in vars(module) if not key.startswith("_")]
        close = difflib.get_close_matches(name, own, n=3, cutoff=0.4)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise UserError(f"{path} defines no {name!r}{hint}")
    found = getattr(module, name)
    if inspect.isroutine(found):
        found = _called(found, path, name)
    try:
        return _inputs.as_problem(found, None)
    except TypeError as error:
        raise UserError(f"{path}:{name} is no problem: {_first_line(error)}") from None


def _imported(path: Path) -> Any:
    # As `python script.py` does, so that the script finds the modules beside it.
    sys.path.insert(0, str(path.resolve().parent))
    name = "__landingopt_script__"
    loader = importlib.machinery.SourceFileLoader(name, str(path.resolve()))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} could not be run: {_said(error, str(path))}") from None
    return module


def _called(function: Any, path: Path, name: str) -> Any:
    needed = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise UserError(
            f"{path}:{name} is a function of {', '.join(needed)}; needed is a problem, or a "
            "function without arguments that returns one"
        )
    try:
        return function()
    except Exception as error:
        raise UserError(f"{path}:{name}() failed: {_said(error, str(path))}") from None


def _said(error: BaseException, target: str) -> str:
    """One line: what was raised, and the last line of the user's script that led there."""
    script = Path(target.rpartition(":")[0] or target).name
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == script
    ]
    where = f" ({script}, line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {_first_line(error)}{where}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _save(result: Result, path: Path) -> Path:
    """Write the feasible x: one array as .npy, blocks as .npz; gives the name that was written."""
    x = result.feasible_x
    if isinstance(x, (dict, tuple)):
        blocks = x if isinstance(x, dict) else {f"x{i}": block for i, block in enumerate(x)}
        path = path.with_suffix(".npz")
        arrays: dict[str, Any] = {str(name): _xp.to_host(block) for name, block in blocks.items()}
        np.savez(path, **arrays)
        return path
    path = path if path.suffix == ".npy" else path.with_name(path.name + ".npy")
    np.save(path, _xp.to_host(x))
    return path


# -- rates ------------------------------------------------------------------------------------

app.command(short_help=_rates.SHORT_HELP, epilog=_rates.EPILOG)(_rates.rates)


# -- figure -----------------------------------------------------------------------------------

app.command(short_help=_figures.SHORT_HELP, epilog=_figures.EPILOG)(_figures.figure)


# -- bench ------------------------------------------------------------------------------------

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure the methods against other libraries.",
)
app.add_typer(bench, name="bench")

# The limits of --quick, which ends within a minute.
_QUICK_SEEDS, _QUICK_REPEATS, _QUICK_TIMEOUT = 1, 3, 3.0

_Names = Annotated[str | None, typer.Option(help="Names, comma separated.  [default: all]")]
_Repeats = Annotated[
    int | None,
    typer.Option(min=1, help=f"Timed runs of each method.  [default: 5; --quick {_QUICK_REPEATS}]"),
]
_Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Exit 1 where a figure falls short of its goal, which is printed with it."
    ),
]


@bench.command(
    name="solvers",
    short_help="Our methods against pymanopt's solvers, on a battery of problems; --large ones.",
    epilog="""\b
Examples:
  landingopt bench solvers --quick
  landingopt bench solvers --problems "procrustes-*,pca-500x5" --seeds 5
  landingopt bench solvers --methods landing,pymanopt-cg --tol 1e-8 --plot none
  landingopt bench solvers --check
  landingopt bench solvers --large --quick
  landingopt bench solvers --large --problems procrustes-300,pca-20000x10 --threads 2
""",
)
def bench_solvers(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer problems, seeds and repeats: within a minute.")
    ] = False,
    large: Annotated[
        bool,
        typer.Option("--large", help="Large problems, stacks, and PyTorch's optimizers (below)."),
    ] = False,
    problems: Annotated[
        str | None, typer.Option(help="Names or patterns, comma separated.  [default: all]")
    ] = None,
    methods: _Names = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of each problem.  [default: 3, or 2 of large ones; --quick {_QUICK_SEEDS}]",
        ),
    ] = None,
    repeats: _Repeats = None,
    tol: Annotated[
        str | None,
        typer.Option(
            help="Gradient norms to reach, relative; times are of the first.  "
            "[default: 1e-6,1e-10; --large one for each problem]"
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help=f"Seconds for one run.  [default: 20; --quick {_QUICK_TIMEOUT:g}; --large 45]",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="--large: of BLAS, and of PyTorch.  [default: 1]")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "--csv",
            help='The runs as CSV; "none" for none.  [default: bench_solvers.csv; --large '
            "bench_large.csv]",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            help='The figure (.png, .pdf, .svg); "none" for none.  [default: bench_solvers.png; '
            "--large bench_large.png]"
        ),
    ] = None,
    check: _Check = False,
) -> None:
    """Solve each problem with each of our methods and of pymanopt's solvers, from the same starts.

    A run is solved where the relative gradient norm at the closest feasible point, measured anew, is
    at most the tolerance. Times are medians of interleaved runs with one BLAS thread: ours as in
    Result.seconds, pymanopt's without our bridge (a solver of pymanopt's that takes more than half a
    second, and 1.5 times as long as its fastest one, is timed once). "x best" is the time of the
    fastest solver of pymanopt over ours, "x ideal" the same if pymanopt never evaluated anything
    twice; "products" are matrix products of our kernels in units of n p^2.

    With --large: whole solves of large problems, the gradient included, "procrustes-500", "pca-1000x10"
    or a stack such as "procrustes-200x100x100", any size. "+-" is half the distance of the quartiles,
    "gap" f - f* over that at the start, "n p^2" the multiplications of an iteration, in that unit; then
    the shares of an iteration's time: matrix products, factorisations, elementwise work, and Python,
    which is all that is no array call. Then constant steps against PyTorch's optimizers, as many of the
    same size from the same X with the same gradient: "x ours" is the time over that of the same step
    of ours. torch-landing is the papers' step in plain PyTorch; packages that are not installed are
    left out.
    """
    with _one_line_errors():
        name = "bench_large" if large else "bench_solvers"
        out = f"{name}.csv" if out is None else out
        plot = f"{name}.png" if plot is None else plot
        csv = None if out.lower() == "none" else _writable(Path(out))
        figure = None if plot.lower() == "none" else _writable(Path(plot), figure=True)
        if large:
            if seeds is not None:
                raise UserError("--seeds is not for --large, where each problem is one instance")
            chosen = _large_settings(quick, problems, methods, repeats, tol, timeout, threads or 1)
            holds = _run_large(*chosen, csv, figure)
        else:
            if threads is not None:
                raise UserError("--threads is for --large; the other problems take one")
            settings = _bench_settings(
                quick, problems, methods, seeds, repeats, tol or "1e-6,1e-10", timeout
            )
            holds = _run_bench(settings, csv, figure)
    raise typer.Exit(1 if check and not holds else 0)


def _large_settings(
    quick: bool,
    problems: str | None,
    methods: str | None,
    repeats: int | None,
    tol: str | None,
    timeout: float | None,
    threads: int,
) -> tuple[Any, Any]:
    """Of the whole solves, and of the fixed steps."""
    from landingopt.bench import large, large_fixed, large_problems, step

    known = (*large.METHODS, *large_fixed.METHODS)
    names = _methods_of(methods, known, "bench solvers --large")
    try:
        reached = None if tol is None else float(tol)
    except ValueError:
        raise UserError(f"--tol must be one number with --large, got {tol!r}") from None
    if reached is not None and not 0.0 < reached < 1.0:
        raise UserError(f"--tol must lie between 0 and 1, got {tol}")
    try:
        with step.blas_threads(threads):
            pass
    except ValueError as error:
        raise UserError(str(error)) from None
    try:
        given = None if problems is None else large_problems.chosen(_parts(problems, "--problems"))
    except ValueError as error:
        raise UserError(f"--problems: {error}") from None
    solved = large_problems.QUICK_SOLVES if quick else large_problems.SOLVES
    stepped = large_problems.QUICK_FIXED if quick else large_problems.FIXED
    rounds = repeats or (_QUICK_REPEATS if quick else 5)
    return (
        large.Settings(
            problems=given or solved,
            methods=[name for name in names if name in large.METHODS],
            tol=reached,
            repeats=rounds,
            threads=threads,
            timeout=timeout if timeout is not None else _QUICK_TIMEOUT if quick else 45.0,
            budget=2.0 if quick else 4.0,
        ),
        large_fixed.Settings(
            problems=given or stepped,
            methods=[name for name in names if name in large_fixed.METHODS],
            repeats=rounds,
            threads=threads,
            multiplications=large_fixed.MULTIPLICATIONS * (0.1 if quick else 1.0),
            budget=2.0 if quick else 4.0,
        ),
    )


def _run_large(solved: Any, stepped: Any, csv: Path | None, figure: Path | None) -> bool:
    """Run, print, write; True where every bound that was measured holds."""
    from landingopt.bench import large, large_fixed, large_plot, large_tables, solvers, step

    if line := solvers.busy():
        _say(f"warning: {line}")
    typer.echo(step.machine(step.Settings(threads=solved.threads)))
    solves = large.run(solved, _say) if solved.methods else []
    if solves:
        typer.echo("\nWhole solves, the gradient included.\n")
        typer.echo(large_tables.solves_table(solves))
    steps = large_fixed.run(stepped, _say) if stepped.methods else []
    if not solves and not steps:
        raise UserError(f"nothing was run: {large_tables.notes(stepped.methods)}")
    if steps:
        typer.echo("\nConstant steps, the gradient included.\n")
        typer.echo(large_tables.steps_table(steps))
    if left := large_tables.notes(stepped.methods):
        typer.echo(f"\n{left}")
    typer.echo("")
    found = large_tables.bounds(solves, steps)
    for bound in found:
        typer.echo(str(bound))
    if csv is not None:
        large_tables.write_csv([*solves, *steps], csv)
        typer.echo(f"\nruns     {csv}")
    if figure is not None:
        if steps or any(row.solved for row in solves):
            large_plot.plot(solves, steps, figure)
            typer.echo(f"figure   {figure}")
        else:
            _say("no figure: nothing was solved")
    return all(bound.holds is not False for bound in found)


def _bench_settings(
    quick: bool,
    problems: str | None,
    methods: str | None,
    seeds: int | None,
    repeats: int | None,
    tol: str,
    timeout: float | None,
) -> Any:
    from landingopt.bench import battery, solvers

    chosen = _methods_of(methods, solvers.METHODS, "bench solvers")
    try:
        tols = tuple(sorted({float(part) for part in tol.split(",")}, reverse=True))
    except ValueError:
        raise UserError(f"--tol must be numbers, comma separated, got {tol!r}") from None
    if not all(0.0 < value < 1.0 for value in tols):
        raise UserError(f"--tol must lie between 0 and 1, got {tol}")
    try:
        families = battery.chosen(
            None if problems is None else _parts(problems, "--problems"), quick
        )
    except ValueError as error:
        raise UserError(f"--problems: {error}") from None
    return solvers.Settings(
        families=families,
        methods=chosen,
        seeds=seeds or (_QUICK_SEEDS if quick else None),
        repeats=repeats or (_QUICK_REPEATS if quick else 5),
        tols=tols,
        timeout=timeout if timeout is not None else _QUICK_TIMEOUT if quick else 20.0,
    )


def _parts(text: str, option: str) -> list[str]:
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UserError(f"{option} names none")
    return parts


def _methods_of(methods: str | None, known: Collection[str], command: str) -> list[str]:
    """The methods of ``--methods``, all without it."""
    names = list(known) if methods is None else _parts(methods, "--methods")
    for name in names:
        if name not in known:
            raise UserError(f"{command} runs {', '.join(known)}; not {name}")
    return names


def _say(line: str) -> None:
    """Progress, beside the figures."""
    typer.echo(line, err=True)


@contextmanager
def _measuring() -> Iterator[None]:
    """One BLAS thread, what may disturb the clock, and the machine."""
    from landingopt.bench import solvers

    with solvers.one_blas_thread() as warning:
        for line in (warning, solvers.busy()):
            if line:
                _say(f"warning: {line}")
        typer.echo(solvers.machine())
        yield


def _run_bench(settings: Any, csv: Path | None, figure: Path | None) -> bool:
    """Run, print, write; True where every bound that was measured holds."""
    from landingopt.bench import profile, solvers, summary, tables

    with _measuring():
        records = solvers.run_battery(settings, _say)
    if not records:
        raise UserError("nothing was run: no problem or no method of those is available here")
    first = settings.tols[0]
    typer.echo(f"\n{tables.runs_table(records, settings.tols)}")
    typer.echo(f"\nTimes to {_power(first)}: the best of pymanopt's over ours, geometric means.\n")
    typer.echo(f"{tables.ratios_table(records, first)}\n")
    found = summary.bounds(records, settings.tols)
    for bound in found:
        typer.echo(str(bound))
    if csv is not None:
        tables.write_csv(records, csv)
        typer.echo(f"\nruns     {csv}")
    if figure is not None:
        profile.plot_profile(records, settings.tols, figure)
        typer.echo(f"figure   {figure}")
    return all(bound.holds is not False for bound in found)


@bench.command(
    name="stochastic",
    short_help="The landing against retractions, with minibatches.",
    epilog="""\b
Examples:
  landingopt bench stochastic --quick
  landingopt bench stochastic --methods landing,CholeskyQR,QR --repeats 9
  landingopt bench stochastic --memmap 4
""",
)
def bench_stochastic(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer sizes, less data: about a minute.")
    ] = False,
    methods: _Names = None,
    repeats: _Repeats = None,
    out: Annotated[
        str, typer.Option(help='The measurements as CSV; "none" for none.')
    ] = "bench_stochastic.csv",
    plot: Annotated[
        str, typer.Option(help='Convergence (.png, .pdf, .svg); "none" for none.')
    ] = "bench_stochastic.png",
    check: _Check = False,
    memmap: Annotated[
        float,
        typer.Option(min=0.0, help="Only: minibatches from a file of so many GiB, against memory."),
    ] = 0.0,
) -> None:
    """Time an epoch, and the way to a loss, of the landing and of retraction methods.

    Estimator, samples and step are the same for all, the step along the Euclidean-metric gradient. Times
    are medians of interleaved runs with one BLAS thread; in parentheses, times over the landing's. An
    epoch is N / batch steps, measured over some of them; "gradient" is the part that all share,
    "products" are the three that a step of the landing needs, each alone.
    """
    with _one_line_errors():
        from landingopt.bench import defaults, stochastic
        from landingopt.bench import memmap as memory_map

        csv = None if out.lower() == "none" else _writable(Path(out))
        figure = None if plot.lower() == "none" else _writable(Path(plot), figure=True)
        names = _methods_of(methods, stochastic.MOVES, "bench stochastic")
        repeats = repeats or (_QUICK_REPEATS if quick else 5)
        sizes = [size for size in stochastic.SIZES if size.quick or not quick]

        with _measuring():
            if memmap:
                typer.echo(f"\n{memory_map.table(memory_map.measure(memmap, repeats, _say))}")
                return
            epochs = stochastic.epochs(sizes, names, repeats, _say)
            typer.echo("\nAn epoch of minibatch steps, milliseconds.\n")
            typer.echo(stochastic.epochs_table(epochs))
            ways = stochastic.ways(names, repeats, quick, _say)
            typer.echo("\nTo within 1e-8 of the optimal value, relative to the start.\n")
            typer.echo(stochastic.ways_table(ways))
            runs = defaults.run(quick, _say)
            typer.echo("\nWithout a step: epochs to a relative gradient norm of 1e-8.\n")
            typer.echo(defaults.table(runs))
        typer.echo("\nMemory.\n")
        typer.echo(f"{stochastic.memory_table(sizes)}\n")
        found = defaults.bounds([] if quick else runs, epochs)  # the goals are of all the data
        for bound in found:
            typer.echo(str(bound))
        if figure is not None:
            defaults.plot(runs, figure)
            typer.echo(f"\nfigure        {figure}")
        if csv is not None:
            stochastic.write_csv([*epochs, *ways], csv)
            typer.echo(f"measurements  {csv}")
    raise typer.Exit(1 if check and not all(bound.holds for bound in found) else 0)


class Precision(str, Enum):
    """Of real numbers."""

    float64 = "float64"
    float32 = "float32"


@bench.command(
    name="step",
    short_help="What one step costs, in units of the matrix products that it needs.",
    epilog="""\b
Examples:
  landingopt bench step --quick
  landingopt bench step --threads 2 --methods landing,POGO,CholeskyQR
  landingopt bench step --shapes 40x40,500x5,200x100x100 --repeats 21 --plot none
  landingopt bench step --device cuda --dtype float32
""",
)
def bench_step(
    device: Annotated[Device, typer.Option(help="cuda needs CuPy and a GPU.")] = Device.cpu,
    dtype: Annotated[Precision, typer.Option(help="Precision of X.")] = Precision.float64,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and smaller shapes: within half a minute.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Of BLAS, on the CPU.")] = 1,
    shapes: Annotated[
        str | None,
        typer.Option(help="nxp, or countxnxp for a stack, comma separated.  [default: all]"),
    ] = None,
    methods: _Names = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds, in each all methods in turn.  [default: 9; --quick 5]"),
    ] = None,
    csv: Annotated[
        str, typer.Option(help='The measurements as CSV; "none" for none.')
    ] = "bench_step.csv",
    plot: Annotated[
        str, typer.Option(help='The figure (.png, .pdf, .svg); "none" for none.')
    ] = "bench_step.png",
) -> None:
    """Time one step of the landing, of POGO and of retraction methods, the gradient given.

    "bare" is the time of the landing's products alone, plain matrix products of different matrices into
    memory that is there: three p x p for square X, four n p^2 for tall X, the same batched for stacks.
    "/ products" is the time of a step over it, the median of interleaved rounds, with quartiles;
    "/ written" over the same products with the transposes of the formulas, G X^T, X X^T and K X, where
    BLAS is slower at the first two. A step is one of lo.minimize, safe step, distance and norm included;
    a method is left out where its step takes seconds.

    "products" are matrix products counted in units of n p^2 (factorisations are not in it), "calls" the
    array calls of a step, "views" those that only look at an array in another way. "layer" are the
    microseconds that are not array calls: the step less the same calls in straight-line code.
    """
    with _one_line_errors():
        from landingopt.bench import solvers, step, step_plot, step_tables

        table = None if csv.lower() == "none" else _writable(Path(csv))
        figure = None if plot.lower() == "none" else _writable(Path(plot), figure=True)
        names = _methods_of(methods, step.METHODS, "bench step")
        try:
            step.namespace(device.value)
            with step.blas_threads(threads):
                pass
            parts = None if shapes is None else _parts(shapes, "--shapes")
            chosen = (
                step.shapes(quick, device.value)
                if parts is None
                else tuple(dict.fromkeys(step.parsed(part) for part in parts))
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        settings = step.Settings(
            shapes=chosen,
            methods=names,
            dtype=dtype.value,
            device=device.value,
            threads=threads,
            repeats=repeats or (5 if quick else 9),
            budget=0.01 if quick else 0.03,
        )
        if line := solvers.busy():
            _say(f"warning: {line}")
        cells = step.run(settings, _say)
        typer.echo(f"\n{step_tables.table(cells)}\n")
        typer.echo(step.machine(settings))
        if table is not None:
            step_tables.write_csv(cells, table)
            typer.echo(f"\nmeasurements  {table}")
        if figure is not None:
            step_plot.plot(cells, figure)
            typer.echo(f"figure        {figure}")


# -- the command itself -----------------------------------------------------------------------


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"landingopt {lo.__version__}")
        raise typer.Exit


@app.callback(
    epilog="""\b
Examples:
  landingopt procrustes --p 40
  landingopt solve my_problem.py:problem --tol 1e-10
  landingopt methods
  landingopt rates --problem ica --method landing-saga
  landingopt bench solvers --quick
"""
)
def landingopt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Optimization under orthogonality constraints by landing: matrix products only."""


if __name__ == "__main__":
    main()
