"""``landingopt rates``: what it prints and writes, its exit codes, its refusals."""

from __future__ import annotations

import csv
import sys
import types

import numpy as np
import pytest
from typer.testing import CliRunner

import landingopt as lo
from landingopt import cli
from landingopt.rates import catalogue, command, exact


def run(*arguments):
    return CliRunner().invoke(cli.app, ["rates", *map(str, arguments)])


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("landingopt: error: ")
    assert result.stdout == ""
    return line


def write(path, gradient, **columns):
    rows = {"iteration": np.arange(len(gradient)), "gradient_norm": np.sqrt(gradient), **columns}
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values()))
    return path


T = np.arange(2048.0)


def test_by_default_the_landing_on_procrustes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("--p", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("CONSISTENT with O(1/T)")
    assert "on Procrustes(n=5, p=5, m=5, float64)" in result.stdout
    assert "theorem: [AVGA24], gradient descent" in result.stdout
    assert "figure   rates.png" in result.stdout
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert result.stderr == ""


def test_the_exit_code_is_the_verdict(tmp_path):
    common = ("--problem", "ica", "--p", 3, "--method", "landing-sgd", "--step", 0.1)
    common += ("--horizon", 1024, "--out", "none")
    assert run(*common).exit_code == 0
    rejected = run(*common, "--expect", "one-over-t")
    assert rejected.exit_code == 1
    assert "the method's own law is O(1), a plateau" in rejected.stdout
    assert "REJECTED with O(1/T)" in rejected.stdout
    short = run("--p", 4, "--horizon", 50, "--out", "none")
    assert short.exit_code == 3
    assert "INCONCLUSIVE" in short.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "pogo"),
        ("--method", "pogo", "--step", 0.02),
        ("--method", "landing-step", "--lam", 3.0),
        ("--method", "riemannian-cayley", "--n", 6, "--dtype", "complex128"),
        ("--method", "landing-lbfgs", "--dtype", "float32"),
        ("--problem", "pca"),
        ("--problem", "pca", "--n", 8, "--method", "landing"),
        ("--problem", "sampled-pca"),
        ("--problem", "sampled-pca", "--method", "landing-sgd-horizon"),
        ("--problem", "ica", "--n", 6, "--method", "landing-svrg"),
    ],
)
def test_problems_and_methods(options):
    result = run("--p", 4, "--horizon", 1024, "--out", "none", *options)
    assert result.exit_code in (0, 3), result.output
    assert "REJECTED" not in result.stdout


def test_own_methods_carry_their_steps():
    problem = lo.problems.ICA.random(3, 100, rng=0)
    method = command._chosen("landing-sgd-horizon", problem, 0.5, None)
    assert method.search.step.rule.step == 0.5
    assert lo.rates.theorem_of(method).law == lo.rates.laws.OneOverSqrtT()
    assert command._chosen("riemannian-polar", problem, 0.5, None).search.step.step == 0.5


class TestTrace:
    def test_a_good_one(self, tmp_path):
        path = write(tmp_path / "a.csv", 1 / (1 + T) ** 2, fun=3.0 + 1 / (1 + T) ** 2)
        out = tmp_path / "a.svg"
        result = run(
            "--trace", path, "--expect", "one-over-t", "--reference-value", 3, "--out", out
        )
        assert result.exit_code == 0, result.output
        assert "f - f*" in result.stdout
        assert out.read_text().startswith("<?xml")

    def test_a_plateau(self, tmp_path):
        path = write(tmp_path / "a.csv", 0.01 + 1 / (1 + T) ** 2)
        assert run("--trace", path, "--expect", "one-over-t", "--out", "none").exit_code == 1
        assert run("--trace", path, "--expect", "bounded", "--out", "none").exit_code == 0

    def test_several_are_seeds(self, tmp_path):
        paths = [write(tmp_path / f"{c}.csv", c / (1 + T) ** 2) for c in (1, 2, 3)]
        options = [text for path in paths for text in ("--trace", path)]
        result = run(*options, "--expect", "one-over-t", "--out", "none")
        assert result.exit_code == 0
        assert "3 runs of each length" in result.stdout

    def test_what_solve_writes(self, tmp_path):
        problem = lo.problems.Procrustes.random(5, rng=0)
        step = cli.procrustes_step(problem)
        method = lo.landing(step=step, lam=0.5 / step)
        trace = lo.minimize(problem, method=method, stop=lo.MaxIterations(4000), rng=0).trace
        trace.to_csv(tmp_path / "a.csv")
        result = run("--trace", tmp_path / "a.csv", "--expect", "one-over-t", "--out", "none")
        assert result.exit_code == 0, result.output

    def test_refusals(self, tmp_path):
        path = write(tmp_path / "a.csv", 1 / (1 + T) ** 2)
        assert "--expect" in refused("--trace", path)
        known = ("--expect", "one-over-t", "--out", "none")
        assert "there is no file" in refused("--trace", tmp_path / "no.csv", *known)
        (tmp_path / "b.csv").write_text("iteration,f\n0,1\n")
        assert "gradient_norm" in refused("--trace", tmp_path / "b.csv", *known)
        (tmp_path / "c.csv").write_text("")
        assert "no rows" in refused("--trace", tmp_path / "c.csv", *known)
        assert "feasible_fun" in refused("--trace", path, *known, "--reference-value", 1)
        assert "--method belongs to a check" in refused("--trace", path, "--method", "pogo", *known)


def test_mistakes_are_one_line(tmp_path):
    assert "did you mean pca" in refused("--problem", "pcaa")
    assert "there are procrustes" in refused("--problem", "zzz")
    assert "linear needs a factor" in refused("--expect", "linear")
    assert "linear needs a factor" in refused("--expect", "linear:2")
    assert "did you mean one-over-t" in refused("--expect", "one-over")
    assert "did you mean landing" in refused("--method", "landng")
    assert "unknown dtype" in refused("--dtype", "int8")
    assert "real data" in refused("--problem", "ica", "--dtype", "complex128")
    assert "finite sum" in refused("--method", "landing-saga")
    assert "takes no --step" in refused("--method", "landing", "--step", 1)
    assert "--lam belongs" in refused("--method", "pogo", "--lam", 1)
    assert "positive" in refused("--step", 0)
    assert "positive" in refused("--method", "riemannian-qr", "--step", -1)
    assert "between 1 and n" in refused("--problem", "pca", "--p", 4, "--n", 2)
    assert "missing" in refused("--out", tmp_path / "no" / "a.png")
    assert "suffix" in refused("--out", tmp_path / "a.txt")
    assert "one at a time" in refused("--all", "--calibrate")
    assert "--problems belongs to --calibrate" in refused("--problems", 3)
    assert "--quick belongs to --all and --calibrate" in refused("--quick")
    assert "--method belongs to a check" in refused("--all", "--method", "pogo")
    assert "missing" in refused("--all", "--csv", tmp_path / "no" / "a.csv")


def test_help_has_examples_and_exit_codes():
    text = run("--help").stdout
    assert "landingopt rates --all --quick" in text
    assert "3 if INCONCLUSIVE" in " ".join(text.split())


class TestAll:
    @pytest.fixture
    def few(self, monkeypatch):
        """One method, and what the other parts would take long for."""
        entries = [e for e in catalogue.entries() if e.method == "landing, step"][:2]
        monkeypatch.setattr(catalogue, "entries", lambda quick: entries)
        pair = lo.problems.Procrustes.random(3, rng=0), lo.landing(step=0.05)
        monkeypatch.setattr(catalogue, "certified", lambda quick, rng: [pair])
        line = lo.rates.Evidence.bound("an exact law", 0.5, 1.0)
        monkeypatch.setattr(exact, "check_exact_laws", lambda quick, rng: [line])

    def test_tables_and_files(self, few, tmp_path):
        path = tmp_path / "rows.csv"
        result = run("--all", "--quick", "--csv", path)
        assert result.exit_code == 0, result.output
        assert "2 of 2 CONSISTENT with their theorem" in result.stdout
        assert "an exact law" in result.stdout
        assert result.stdout.count("Certificate: no violation") == 1
        with open(path, newline="") as file:
            assert len(list(csv.DictReader(file))) == 2

    def test_a_broken_law_exits_with_1(self, few, monkeypatch):
        broken = lo.rates.Evidence.bound("an exact law", 2.0, 1.0)
        monkeypatch.setattr(exact, "check_exact_laws", lambda quick, rng: [broken])
        result = run("--all", "--quick")
        assert result.exit_code == 1
        assert "BROKEN" in result.stdout

    def test_verdicts_decide_the_exit_code(self, few, monkeypatch):
        (row, *_) = catalogue.run(True)
        for verdict, source, code in (
            ("REJECTED", row.source, 1),
            ("INCONCLUSIVE", row.source, 3),
            ("REJECTED", "no theorem; observed", 0),
        ):
            changed = catalogue.replace(row, verdict=verdict, source=source)
            monkeypatch.setattr(catalogue, "run", lambda *a, _row=changed, **k: [_row])
            assert run("--all", "--quick").exit_code == code


def test_calibrate_prints_and_writes(tmp_path, monkeypatch):
    asked = {}

    def study(problems, *, quick, rng, say):
        asked.update(problems=problems, quick=quick, rng=rng)
        say("half of it")
        return ["a rate"]

    module = types.ModuleType("landingopt.rates.calibrate")
    module.study, module.table = study, lambda rates: f"table of {rates}"
    module.write_csv = lambda rates, path: path.write_text("rates\n")
    monkeypatch.setitem(sys.modules, "landingopt.rates.calibrate", module)
    monkeypatch.setattr(lo.rates, "calibrate", module, raising=False)
    path = tmp_path / "rates.csv"
    result = run("--calibrate", "--problems", 7, "--quick", "--seed", 3, "--csv", path)
    assert result.exit_code == 0, result.output
    assert asked == {"problems": 7, "quick": True, "rng": 3}
    assert "table of ['a rate']" in result.stdout
    assert "half of it" in result.stderr
    assert path.read_text() == "rates\n"
