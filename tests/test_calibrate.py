"""The study of the verdict's errors: its arithmetic, its problems, and that it sees what check sees."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy.stats import beta

import landingopt as lo
from landingopt.rates import Verdict, calibrate, laws
from landingopt.rates.calibrate import Bench, Each, Rate, Row, Runs

KINDS = ("law", "control", "not claimed")


def bench(problems=4, horizon=2**13, shapes=((4, 3),), seed=0):
    return Bench(problems, horizon, shapes, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def quick():
    told = []
    return calibrate.study(4, quick=True, rng=1, say=told.append), told


# -- the numbers ----------------------------------------------------------------------------------


def test_what_counts_as_an_error_depends_on_the_kind():
    verdicts = [Verdict.CONSISTENT] * 5 + [Verdict.REJECTED] * 2 + [Verdict.INCONCLUSIVE]
    for kind, errors in zip(KINDS, (2, 5, 5), strict=True):
        rate = Row(kind, "a run", "O(1/T)").rate(verdicts)
        assert (rate.consistent, rate.rejected, rate.inconclusive) == (5, 2, 1)
        assert rate.problems == 8 and rate.errors == errors and rate.rate == errors / 8


@pytest.mark.parametrize(("errors", "problems"), [(0, 1000), (3, 1000), (10, 20), (7, 7)])
def test_the_interval_is_clopper_and_pearsons(errors, problems):
    low, high = Rate("a run", "law", "O(1/T)", problems - errors, errors, 0).interval
    assert low == pytest.approx(beta.ppf(0.025, errors, problems - errors + 1) if errors else 0.0)
    rest = problems - errors
    assert high == pytest.approx(beta.ppf(0.975, errors + 1, rest) if rest else 1.0)


def test_the_interval_of_no_errors_is_the_known_one():
    low, high = Rate("a run", "control", "O(1/T)", 0, 1000, 0).interval
    assert low == 0.0 and high == pytest.approx(1.0 - 0.025 ** (1 / 1000))


# -- the study ------------------------------------------------------------------------------------


def test_a_quick_study_fills_every_row(quick):
    rates, told = quick
    assert {rate.kind for rate in rates} == set(KINDS)
    assert len(told) == len(rates) == len({(rate.name, rate.law, rate.kind) for rate in rates})
    for rate in rates:
        assert rate.problems == (1 if rate.kind == "not claimed" and rate.problems == 1 else 4)
        low, high = rate.interval
        assert 0.0 <= low <= rate.rate <= high <= 1.0
    exact = [rate for rate in rates if rate.law in ("right", "unbiased")]
    assert len(exact) == 8 and not any(rate.errors for rate in exact)


def test_the_table_and_the_file_have_a_line_for_each_row(quick, tmp_path):
    rates, told = quick
    text = calibrate.table(rates)
    lines = text.splitlines()
    assert len(lines) == 1 + len(rates) + len(KINDS)
    assert all(sum(line.startswith("  " + r.name) for line in lines) >= 1 for r in rates)
    assert all(name in line for name, line in zip((r.name for r in rates), told, strict=True))
    ends = {len(line) for line in lines if line.startswith("  ")}
    assert len(ends) == 1  # aligned to the right
    calibrate.write_csv(rates, tmp_path / "rates.csv")
    with open(tmp_path / "rates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [rate.name for rate in rates]
    for row, rate in zip(rows, rates, strict=True):
        assert int(row["consistent"]) == rate.consistent and row["law"] == rate.law
        assert int(row["problems"]) == rate.problems and float(row["rate"]) == rate.rate
        assert (float(row["low"]), float(row["high"])) == rate.interval


def test_a_study_can_be_repeated():
    experiment = calibrate._EXPERIMENTS[0]
    first, again, other = (list(experiment.verdicts(bench(3, 2**10, seed=s))) for s in (5, 5, 6))
    assert first == again and len(other) == 3


# -- its problems and runs ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5), (6, 4)])
def test_the_curvatures_are_those_of_the_hessian_at_the_minimum(shape):
    rng = np.random.default_rng(0)
    C = rng.standard_normal((1, *shape))
    x0 = lo.stiefel.random(*shape, stack=(1,), rng=1)
    least, largest = calibrate.curvatures(C, x0)
    n, p = shape
    u, _, vh = np.linalg.svd(C[0], full_matrices=False)
    if n == p and np.linalg.det(u @ vh) * np.linalg.det(x0[0]) < 0:
        u[:, -1] *= -1.0
    x = u @ vh
    full = np.linalg.qr(np.hstack([x, rng.standard_normal((n, n - p))]))[0][:, p:]
    basis = [x @ (e - e.T) for e in np.eye(p * p).reshape(-1, p, p) if np.any(np.triu(e, 1))]
    basis += [w[:, None] * row for w in full.T for row in np.eye(p)]
    basis = np.array([v.ravel() / np.linalg.norm(v) for v in basis])

    def value(y):  # f at the closest point
        return -np.sum(C[0] * lo.stiefel.polar(x + y.reshape(n, p)))

    h, m = 1e-4, len(basis)
    hessian = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            a, b = h * basis[i], h * basis[j]
            hessian[i, j] = (value(a + b) - value(a - b) - value(b - a) + value(-a - b)) / (
                4 * h * h
            )
    found = np.linalg.eigvalsh(hessian)
    assert found[0] == pytest.approx(least[0], abs=1e-5)
    assert found[-1] == pytest.approx(largest[0], abs=1e-5)


def test_the_problems_are_fresh_and_their_numbers_add_up():
    shapes = ((4, 3), (6, 4), (5, 5))
    for make in (calibrate._procrustes, calibrate._components, calibrate._sums):
        stacks = list(make(bench(8, shapes=shapes)))
        assert sum(len(x0) for _, x0, _ in stacks) == 8
        for problem, x0, number in stacks:
            assert problem.fun(x0).shape == number.shape == (len(x0),)
            assert len(set(problem.fun(x0).tolist())) == len(x0)


def test_a_sum_is_the_mean_of_its_terms():
    problem, x0, _ = next(iter(calibrate._sums(bench(2))))
    terms = np.arange(problem.n_terms)
    assert np.allclose(problem.fun(x0), problem.fun_terms(x0, terms))
    assert np.allclose(problem.grad(x0), problem.grad_terms(x0, terms))
    one = [problem.grad_terms(x0, np.array([i])) for i in terms]
    assert np.allclose(problem.grad(x0), np.mean(one, axis=0))


def test_no_safe_step_cuts_the_longest_steps_of_sgd():
    problem, x0, _ = next(iter(calibrate._sums(bench(6, shapes=((6, 6),)))))
    method = calibrate._sampled(Each(problem.longest))
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(400), record=lo.Every(1), rng=0)
    assert np.all(result.trace["step"][1:] == problem.longest)


def test_a_stack_is_judged_as_its_problems_are_by_check():
    """Lengths, seeds, records, floors: the deterministic runs are the same to rounding."""
    stack, x0, longest = next(iter(calibrate._procrustes(bench(4, seed=3))))
    sizes = np.array([0.5, 0.02, 3.0, 1e-3]) * longest
    runs = Runs(bench(horizon=2**11), stack, x0, lambda T: lo.landing(step=Each(sizes)))
    found = runs.verdicts(laws.OneOverT())
    for i, verdict in enumerate(found):
        problem = lo.problems.Procrustes(stack.A[i], stack.B[i])
        method = lo.landing(step=sizes[i])
        report = lo.rates.check(problem, method, x0=x0[i], horizon=2**11, rng=0)
        assert verdict is report.verdict, report
        theirs, ours = report.runs[0], runs.observed[0][i]
        assert ours.horizon == theirs.horizon or abs(ours.horizon - theirs.horizon) <= 256
        assert np.allclose(ours.gradient[:65], theirs.gradient[:65])
        assert np.allclose(ours.infeasibility[1:65], theirs.infeasibility[1:65])
    assert len(set(found)) > 1


def test_a_stack_in_single_precision_stays_in_it():
    stack, x0, longest = next(iter(calibrate._procrustes(bench(2), np.float32)))
    rule = Each((0.5 * longest).astype(np.float32))
    result = lo.minimize(stack, x0, lo.landing(step=rule), stop=lo.MaxIterations(3))
    assert result.x.dtype == np.float32


@pytest.mark.parametrize("make", [calibrate._procrustes, calibrate._components, calibrate._sums])
def test_the_single_problem_of_a_stack_is_that_problem(make):
    stack, x0, _ = next(iter(make(bench(1))))
    problem = calibrate._single(stack)
    assert problem.fun(x0[0]) - problem.fun(-x0[0]) == pytest.approx(
        float(stack.fun(x0)[0] - stack.fun(-x0)[0]), abs=1e-12
    )
    assert np.allclose(problem.grad(x0[0]), stack.grad(x0)[0])
