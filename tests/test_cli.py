"""The command line, through typer's runner and as a subprocess."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt import cli

SCRIPT = """
import numpy as np
import landingopt as lo

problem = lo.problems.Procrustes.random(6, rng=0)
number = 3
zeros = lo.Objective(lambda x: 0.0, lambda x: np.zeros((3, 3)), shape=(5, 5))
nan = lo.Objective(lambda x: float("nan"), lambda x: x * float("nan"), shape=(5, 5))
blocks = lo.Objective(
    lambda x: float(np.sum((x["W"] - 1) ** 2) + np.sum((x["b"] - 1) ** 2)),
    lambda x: {k: 2 * (v - 1) for k, v in x.items()},
    shape={"W": (4, 2), "b": (3,)},
    constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
)

def make():
    return lo.problems.PCA.random(12, 3, rng=0)

def needs(a, b=1):
    return a

def broken():
    raise ValueError("no luck")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line on standard error that a mistake of the user's gets."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("landingopt: error: ")
    return lines[0]


class TestProcrustes:
    def test_table_summary_and_files(self, tmp_path):
        out, traces, data = tmp_path / "a.png", tmp_path / "a.csv", tmp_path / "a.json"
        result = run(
            "procrustes", "--p", 6, "--methods", "landing,landing-step", "--repeats", 1,
            "--out", out, "--csv", traces, "--json", data, "--no-progress",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "Procrustes(n=6, p=6, m=6, float64), seed 0, cpu" in result.stdout
        problem = lo.problems.Procrustes.random(6, rng=0)
        sign = int(re.search(r"det x = ([+-]1)", result.stdout)[1])
        assert f"f* = {problem.optimum(component=sign)[1]:.12g} (closed form" in result.stdout
        assert re.search(r"best +landing(-step)?: f - f\* = .*relative .*distance", result.stdout)
        assert out.read_bytes().startswith(b"\x89PNG")
        assert str(out) in result.stdout
        with open(traces, newline="") as file:
            assert {row["method"] for row in csv.DictReader(file)} == {"landing", "landing-step"}
        assert len(json.loads(data.read_text())["table"]) == 2
        assert result.stderr == ""

    def test_progress_is_on_standard_error(self, tmp_path):
        result = run(
            "procrustes", "--p", 4, "--methods", "landing", "--out", "none", "--progress"
        )  # fmt: skip
        assert "compare" in result.stderr
        assert "compare" not in result.stdout

    def test_exit_code_says_whether_landing_has_solved(self):
        common = ("procrustes", "--p", 6, "--repeats", 1, "--out", "none", "--methods")
        assert run(*common, "landing,landing-step", "--max-iterations", 3).exit_code == 1
        assert run(*common, "landing-step", "--tol", 1e-4).exit_code == 0
        assert run(*common, "landing", "--max-iterations", 0).exit_code == 1

    @pytest.mark.parametrize(
        "options",
        [
            ("--n", 9),
            ("--n", 4),
            ("--stack", 3),
            ("--dtype", "float32"),
            ("--dtype", "complex128"),
            ("--dtype", "complex64", "--n", 8, "--stack", 2),
        ],
    )
    def test_shapes_and_precisions(self, options, tmp_path):
        result = run(
            "procrustes", "--p", 6, *options, "--methods", "landing,landing-step", "--repeats", 1,
            "--out", tmp_path / "figure.png",
        )  # fmt: skip
        assert result.exit_code == 0, result.output

    def test_pymanopt_methods(self, tmp_path):
        pytest.importorskip("landingopt.baselines.pymanopt_bridge")
        result = run(
            "procrustes", "--p", 5, "--repeats", 1, "--out", "none", "--max-iterations", 50
        )
        for name in cli._ON_CPU.split(","):
            assert name in result.stdout
        assert "ERROR" not in result.stdout
        assert "Error:" not in result.stdout

    @pytest.mark.parametrize("options", [(), ("--n", 9), ("--dtype", "complex128")])
    def test_pogo_takes_the_step_of_landing_step(self, options):
        result = run(
            "procrustes", "--p", 6, *options, "--methods", "landing-step,pogo", "--repeats", 1,
            "--out", "none", "--tol", 1e-4,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert result.stdout.count("CONVERGED") == 2

    def test_user_mistakes(self, tmp_path):
        line = refused("procrustes", "--methods", "landng")
        assert "did you mean landing" in line
        assert "there are landing" in refused("procrustes", "--methods", "qqq")
        assert "none" in refused("procrustes", "--methods", ",")
        assert "missing" in refused("procrustes", "--out", tmp_path / "no" / "a.png")
        assert "suffix" in refused("procrustes", "--out", tmp_path / "a.xyz")
        assert "folder" in refused("procrustes", "--csv", tmp_path)
        if not _cuda():
            assert "CuPy" in refused("procrustes", "--device", "cuda")

    def test_bad_options_exit_with_2(self):
        for options in (("--p", 0), ("--dtype", "int8"), ("--repeats", "x"), ("--device", "tpu")):
            result = run("procrustes", *options)
            assert result.exit_code == 2
            assert options[0] in result.stderr
            assert "Traceback" not in result.stderr


def _cuda():
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:
        return False


class TestProcrustesStep:
    """The step of landing-step is half of the largest stable one (MATH section 4)."""

    @pytest.mark.parametrize("weight", [1.0, 50.0])
    @pytest.mark.parametrize("n", [6, 9])
    @pytest.mark.parametrize("dtype", [np.float64, np.complex128])
    def test_stability_limit(self, n, weight, dtype):
        problem = lo.problems.Procrustes.random(6, n, rng=2, weight=weight, dtype=dtype)
        x, fun = problem.optimum()
        noise = lo.stiefel.random(n, 6, rng=3, like=x) * 1e-4
        start = lo.stiefel.polar(x + noise)
        step = cli.procrustes_step(problem)
        gaps = {}
        for factor in (1.95, 2.05):
            eta = factor * step
            result = lo.minimize(
                problem, start, lo.landing(step=eta, lam=0.5 / eta), stop=lo.MaxIterations(400)
            )
            gaps[factor] = float(result.feasible_fun - fun)
        first = float(problem.fun(start) - fun)
        assert gaps[1.95] < 0.1 * first
        assert gaps[2.05] > 10.0 * first

    def test_wide_converges(self):
        problem = lo.problems.Procrustes.random(8, 4, rng=0)
        step = cli.procrustes_step(problem)
        method = lo.landing(step=step, lam=0.5 / step)
        assert lo.minimize(problem, method=method, rng=0, tol=1e-4).success

    def test_stack_has_the_smallest_step(self):
        problem = lo.problems.Procrustes.random(5, stack=(3,), rng=0)
        each = [
            cli.procrustes_step(lo.problems.Procrustes(a, b))
            for a, b in zip(problem.A, problem.B, strict=True)
        ]
        assert cli.procrustes_step(problem) == pytest.approx(min(each))

    def test_one_column(self):
        problem = lo.problems.Procrustes(np.ones((1, 1)), np.full((3, 1), 2.0))
        assert cli.procrustes_step(problem) == pytest.approx(1.0 / np.sqrt(12.0))


class TestSolve:
    def test_problem(self, script, tmp_path):
        out, trace = tmp_path / "x.npy", tmp_path / "trace.csv"
        result = run(
            "solve",
            f"{script}:problem",
            "--tol",
            1e-10,
            "--seed",
            3,
            "--out",
            out,
            "--trace",
            trace,
        )
        assert result.exit_code == 0, result.output
        problem = lo.problems.Procrustes.random(6, rng=0)
        expected = lo.minimize(problem, tol=1e-10, rng=3)
        np.testing.assert_array_equal(np.load(out), expected.feasible_x)
        assert f"nit: {expected.nit}" in result.stdout
        assert "CONVERGED" in result.stdout
        with open(trace, newline="") as file:
            assert len(list(csv.DictReader(file))) == len(expected.trace)

    def test_name_is_problem_by_default(self, script):
        assert run("solve", script).exit_code == 0

    def test_function_that_returns_a_problem(self, script):
        result = run("solve", f"{script}:make")
        assert result.exit_code == 0
        assert "(12, 3)" in result.stdout

    def test_blocks_are_saved_together(self, script, tmp_path):
        result = run("solve", f"{script}:blocks", "--out", tmp_path / "x.npy")
        assert result.exit_code == 0
        saved = np.load(tmp_path / "x.npz")
        assert saved["W"].shape == (4, 2)
        np.testing.assert_allclose(saved["b"], 1.0, atol=1e-5)

    @pytest.mark.parametrize(("option", "sign"), [("+1", "1"), ("-1", "-1"), ("1", "1")])
    def test_component(self, script, option, sign):
        result = run("solve", script, "--component", option)
        assert re.search(rf"component: {sign}\n", result.stdout)

    def test_both_components(self, script):
        result = run("solve", script, "--component", "both")
        assert "Solved in both components" in result.stdout

    def test_methods(self, script):
        result = run("solve", script, "--method", "landing-step", "--step", 0.01, "--lam", 20)
        assert result.exit_code == 0
        assert "lam=20" in result.stdout
        result = run("solve", script, "--method", "pogo", "--step", 0.01)
        assert result.exit_code == 0
        assert "pogo(step=0.01)" in result.stdout

    def test_pymanopt_problem(self, tmp_path, monkeypatch):
        pytest.importorskip("landingopt.baselines.pymanopt_bridge")
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "theirs.py").write_text(
            "import numpy as np, pymanopt\n"
            "A = np.diag([4.0, 3.0, 2.0, 1.0])\n"
            "M = pymanopt.manifolds.Stiefel(4, 2)\n"
            "cost = pymanopt.function.numpy(M)(lambda x: -np.trace(x.T @ A @ x))\n"
            "grad = pymanopt.function.numpy(M)(lambda x: -2.0 * A @ x)\n"
            "problem = pymanopt.Problem(M, cost, euclidean_gradient=grad)\n"
        )
        result = run("solve", tmp_path / "theirs.py")
        assert result.exit_code == 0, result.output
        assert re.search(r" fun: -(7$|7\.0|6\.99999)", result.stdout, re.MULTILINE)

    def test_a_run_that_breaks_exits_with_1(self, script):
        result = run("solve", f"{script}:nan")
        assert result.exit_code == 1
        assert "NONFINITE" in result.stdout

    def test_the_script_finds_the_modules_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        (tmp_path / "beside_it.py").write_text("SIZE = 5\n")
        (tmp_path / "script.py").write_text(
            "import landingopt as lo\nfrom beside_it import SIZE\n"
            "problem = lo.problems.Procrustes.random(SIZE, rng=0)\n"
        )
        assert "(5, 5)" in run("solve", tmp_path / "script.py").stdout

    def test_user_mistakes(self, script, tmp_path):
        assert "there is no file" in refused("solve", tmp_path / "none.py")
        line = refused("solve", f"{script}:problm")
        assert "defines no 'problm'" in line
        assert "problem" in line
        assert "int is not a problem" in refused("solve", f"{script}:number")
        assert "function of a;" in refused("solve", f"{script}:needs")
        line = refused("solve", f"{script}:broken")
        assert "no luck" in line
        assert "script.py, line 23" in line
        assert "shape (3, 3)" in refused("solve", f"{script}:zeros")
        assert "--component" in refused("solve", script, "--component", "3")
        assert "square" in refused("solve", f"{script}:make", "--component", "-1")
        assert "--step" in refused("solve", script, "--method", "landing-step")
        assert "positive" in refused("solve", script, "--method", "landing-step", "--step", -1)
        assert "landing-step" in refused("solve", script, "--step", 0.1)
        assert "pogo needs --step" in refused("solve", script, "--method", "pogo")
        assert "positive" in refused("solve", script, "--method", "pogo", "--step", -1)
        pogo = ("--method", "pogo", "--step", 0.1, "--lam", 1)
        assert "landing-step" in refused("solve", script, *pogo)
        assert "did you mean" in refused("solve", script, "--method", "lnding")
        assert "missing" in refused("solve", script, "--out", tmp_path / "no" / "x.npy")

    def test_scripts_that_do_not_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name, text, wanted in (
            ("syntax.py", "x = (", "SyntaxError"),
            ("absent.py", "import not_a_module_at_all", "not_a_module_at_all"),
            ("leaves.py", "raise SystemExit(3)", "SystemExit"),
        ):
            (tmp_path / name).write_text(text)
            line = refused("solve", tmp_path / name)
            assert wanted in line
            assert name in line


class TestTheRest:
    def test_methods_are_listed(self):
        result = run("methods")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert [line.split()[0] for line in lines] == list(cli.METHODS)
        assert max(map(len, lines)) <= 120

    def test_every_listed_method_can_be_made(self):
        for name, entry in cli.METHODS.items():
            if not name.startswith("pymanopt"):
                assert entry.make(0.1, None).name.startswith(name.split("-")[0])

    def test_version_and_help(self):
        assert run("--version").stdout.strip() == f"landingopt {lo.__version__}"
        text = run("--help").stdout
        for word in ("procrustes", "solve", "methods", "Examples:"):
            assert word in text
        for command in ("procrustes", "solve"):
            assert "Examples:" in run(command, "--help").stdout

    def test_a_wrong_command_exits_with_2(self):
        assert run("procrustse").exit_code == 2

    def test_as_a_module(self, tmp_path):
        done = subprocess.run(
            [
                sys.executable, "-m", "landingopt", "procrustes", "--p", "6", "--repeats", "1",
                "--methods", "landing", "--out", "figure.png",
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "landing" in done.stdout
        assert done.stderr == ""
        assert (tmp_path / "figure.png").stat().st_size > 10_000

    def test_a_mistake_in_a_terminal_is_one_line(self):
        done = subprocess.run(
            [sys.executable, "-m", "landingopt", "solve", "nowhere.py"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr == "landingopt: error: there is no file nowhere.py\n"


def test_importing_the_library_imports_nothing_heavy():
    code = (
        "import sys, landingopt\n"
        "heavy = ('matplotlib', 'cupy', 'torch', 'jax', 'pymanopt', 'typer', 'scipy', 'tqdm',\n"
        "         'autograd', 'sklearn', 'rich')\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
