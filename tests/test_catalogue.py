"""The catalogue: methods against their laws, some rows of it, and its table."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import landingopt as lo
from landingopt.rates import catalogue
from landingopt.rates.catalogue import Row
from landingopt.rates.theorems import theorem_of


def rows_of(*names, problem=None, quick=True, dtype="float64"):
    chosen = [
        entry
        for entry in catalogue.entries()
        if entry.method in names and entry.problem in (problem or entry.problem)
        if entry.dtype == dtype
    ]  # fmt: skip
    return catalogue.run(quick, chosen=chosen)


def test_every_method_of_the_library_has_entries():
    names = " ".join(entry.method for entry in catalogue.entries())
    for method in ("landing_sgd", "landing_saga", "landing_svrg", "landing_lbfgs", "landing_cg"):
        assert method in names
    for retraction in ("QR", "CholeskyQR", "Polar", "Cayley", "Exponential"):
        assert f"riemannian, {retraction}" in names
    for part in ("pogo", "landing_newton", "exact exit", "Momentum".lower(), "Adam", "loopless"):
        assert part in names
    assert names.count("pymanopt") == 9
    problems = {name: make(3, 4, np.float64, 0) for name, make in catalogue.PROBLEMS.items()}
    for entry in catalogue.entries():
        assert theorem_of(entry.make(problems[entry.problem])).law is not None


def test_methods_with_a_theorem_are_consistent_with_it():
    rows = rows_of(
        "landing, step", "landing, step, exact exit", "landing, step, Euclidean",
        "landing, 1/sqrt k steps", "riemannian, QR", "riemannian, Cayley",
    )  # fmt: skip
    rows += rows_of("landing_saga", "landing_sgd", problem="ica")
    rows += rows_of("landing, step", "riemannian, Polar", dtype="float32")
    assert len(rows) == 26
    assert all(row.holds for row in rows), catalogue.table(rows)
    assert {row.dtype for row in rows} == {"float64", "float32"}


def test_methods_without_one_are_observed():
    rows = rows_of("landing", "landing, momentum", "pogo", "landing_lbfgs", problem="pca")
    assert [row.holds for row in rows] == [None] * 4
    assert {row.verdict for row in rows} == {"CONSISTENT"}
    assert {row.source for row in rows} == {"no theorem; observed"}


def _row(verdict, source, gradient="-1.00 -1.10"):
    return Row("m", "pca", "float32", "O(1/T)", source, verdict, gradient, "", "too slow", 0.25)


def test_table_and_summary():
    rows = [
        _row("CONSISTENT", "[AVGA24], SGD"),
        _row("REJECTED", "[AVGA24], SGD"),
        _row("INCONCLUSIVE", "no theorem; observed"),
    ]
    text = catalogue.table(rows)
    assert "pca, float32" in text
    assert "1 of 2 CONSISTENT with their theorem; without one: 1 INCONCLUSIVE" in text
    assert "REJECTED: m on pca, float32: too slow" in text
    assert max(map(len, text.splitlines()[:2])) < 120


def test_csv_has_a_line_for_each_row(tmp_path):
    path = tmp_path / "rows.csv"
    catalogue.write_csv([_row("CONSISTENT", "[AVGA24], SGD")], path)
    with open(path, newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["verdict"] == "CONSISTENT"
    assert float(line["seconds"]) == 0.25


def test_progress_is_on_standard_error(capfd):
    entries = [e for e in catalogue.entries() if e.method == "landing"][:1]
    catalogue.run(quick=True, chosen=entries, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "landing on procrustes" in err


@pytest.mark.parametrize("name", catalogue.PROBLEMS)
def test_default_steps_are_stable(name):
    problem = catalogue.PROBLEMS[name](3, None, np.float64, 1)
    result = lo.minimize(
        problem, method=catalogue.landing_step(problem), rng=0,
        stop=lo.GradientNorm(rtol=1e-8) | lo.MaxIterations(5000),
    )  # fmt: skip
    assert result.success


def test_default_step_is_half_of_the_longest_that_converges():
    problem = lo.problems.PCA.from_covariance(np.diag([3.0, 2.0, 1.0, 0.0]), 2)
    step = catalogue.default_step(problem)
    x0 = problem.optimum()[0] + 1e-6 * np.random.default_rng(0).standard_normal((4, 2))
    x0 = lo.stiefel.polar(x0)
    ends = []
    for factor in (1.9, 2.1):
        result = lo.minimize(
            problem, x0, lo.pogo(factor * step), stop=lo.MaxIterations(200), on_failure="return"
        )
        ends.append(result.gradient_norm)
    assert ends[0] < 1e-9 < 1e-4 < ends[1]


def test_certified_pairs_can_be_certified():
    from landingopt.rates.certificates import certify

    for problem, method in catalogue.certified():
        assert certify(problem, method, iterations=20, rng=0)
