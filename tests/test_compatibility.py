"""README's compatibility table, cell by cell: what works runs, and what does not is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

import landingopt as lo
from landingopt.estimators import Full, MiniBatch

README = Path(__file__).parents[1] / "README.md"
SEARCH = lo.searches.LineSearch()
GD = lo.optimizers.GradientDescent(0.01)


def inside(estimator):
    """The estimator for what has a step: minibatches where they are asked for."""
    return Full() if estimator is None else estimator


ROWS = {
    "landing()": lambda e: lo.landing() if e is None else None,
    "landing_newton()": lambda e: lo.landing_newton() if e is None else None,
    "landing_lbfgs()": lambda e: lo.landing_lbfgs() if e is None else None,
    "landing_cg()": lambda e: lo.landing_cg() if e is None else None,
    "landing(step=...)": lambda e: lo.landing(step=0.01, base=e),
    "pogo(step)": lambda e: lo.pogo(0.01, base=e),
    "landing_sgd()": lambda e: lo.landing_sgd(0.01),
    "landing_saga()": lambda e: lo.landing_saga(0.01),
    "landing_svrg()": lambda e: lo.landing_svrg(0.01),
    "riemannian(retraction)": lambda e: lo.riemannian(step=0.01, estimator=inside(e)),
    "riemannian(search=...)": lambda e: lo.riemannian(search=SEARCH) if e is None else None,
    "trivialization()": lambda e: lo.trivialization() if e is None else None,
    "trivialization(optimizer=...)": lambda e: lo.trivialization(optimizer=GD, estimator=inside(e)),
    "penalty(lam)": lambda e: lo.penalty(1.0) if e is None else None,
    "penalty(lam, optimizer)": lambda e: lo.penalty(1.0, GD, estimator=inside(e)),
    'pymanopt("...")': lambda e: lo.pymanopt("ConjugateGradient") if e is None else None,
}
SUMS = ("landing_sgd()", "landing_saga()", "landing_svrg()")
rng = np.random.default_rng(0)


def _linear(target):
    return lo.Objective(
        fun=lambda x: -np.sum((np.conj(target) * x).real, axis=(-2, -1)),
        grad=lambda x: -target + 0 * x,
        shape=target.shape,
    )


def _sum(shape=(6, 3)):
    data = rng.standard_normal((40, *shape))
    return lo.FiniteSum(
        lambda x, t: -float(np.mean(np.sum(data[t] * x, (1, 2)))),
        lambda x, t: -np.mean(data[t], axis=0) + 0 * x,
        n_terms=40,
        shape=shape,
    )


def _complex(sums):
    if sums:
        data = rng.standard_normal((40, 6, 3)) + 1j * rng.standard_normal((40, 6, 3))
        problem = lo.FiniteSum(
            lambda x, t: -float(np.mean(np.sum((np.conj(data[t]) * x).real, (1, 2)))),
            lambda x, t: -np.mean(data[t], axis=0) + 0 * x,
            n_terms=40,
            shape=(6, 3),
        )
    else:
        problem = _linear(rng.standard_normal((6, 3)) + 1j * rng.standard_normal((6, 3)))
    return problem, lo.stiefel.random(6, 3, rng=1, dtype=complex)


def _wide(sums):
    problem = _sum((3, 6)) if sums else _linear(rng.standard_normal((3, 6)))
    return problem, lo.stiefel.random(3, 6, rng=1)


def _stack(sums):
    if sums:
        data = rng.standard_normal((40, 4, 6, 3))
        problem = lo.FiniteSum(
            lambda x, t: -np.mean(np.sum(data[t] * x, (2, 3)), axis=0),
            lambda x, t: -np.mean(data[t], axis=0) + 0 * x,
            n_terms=40,
            shape=(4, 6, 3),
        )
    else:
        problem = _linear(rng.standard_normal((4, 6, 3)))
    return problem, lo.stiefel.random(6, 3, stack=(4,), rng=1)


def _blocks(sums):
    a, b = rng.standard_normal((40, 6, 3)), rng.standard_normal((40, 2))
    shape = {"q": (6, 3), "w": (2,)}
    constraint = {"q": lo.Stiefel(), "w": lo.Euclidean()}

    def fun(x, t=slice(None)):
        return -float(np.mean(np.sum(a[t] * x["q"], (1, 2)))) + float(
            np.mean(np.sum((x["w"] - b[t]) ** 2, 1))
        )

    def grad(x, t=slice(None)):
        return {"q": -np.mean(a[t], axis=0) + 0 * x["q"], "w": 2 * (x["w"] - np.mean(b[t], axis=0))}

    if sums:
        problem = lo.FiniteSum(fun, grad, n_terms=40, shape=shape, constraint=constraint)
    else:
        problem = lo.Objective(fun, grad, shape=shape, constraint=constraint)
    return problem, {"q": lo.stiefel.random(6, 3, rng=1), "w": np.zeros(2)}


def _strict(sums):
    xp = pytest.importorskip("array_api_strict")
    device = xp.Device("device1")
    data = xp.asarray(rng.standard_normal((40, 6, 3)), device=device)
    like = lo.stiefel.random(6, 3, rng=1, like=data)
    if sums:

        def mean(t):
            picked = data[t, ...] if isinstance(t, slice) else xp.take(
                data, xp.asarray(t, device=device), axis=0
            )  # fmt: skip
            return xp.mean(picked, axis=0)

        return lo.FiniteSum(
            lambda x, t: -xp.sum(mean(t) * x), lambda x, t: -mean(t) + 0.0 * x,
            n_terms=40, shape=(6, 3), like=data,
        ), like  # fmt: skip
    target = xp.mean(data, axis=0)
    return lo.Objective(
        lambda x: -xp.sum(target * x), lambda x: -target + 0.0 * x, shape=(6, 3), like=data
    ), like


def _without_f(sums):
    target = rng.standard_normal((6, 3))
    if sums:
        data = rng.standard_normal((40, 6, 3))
        return lo.FiniteSum(
            None, lambda x, t: -np.mean(data[t], axis=0) + 0 * x, n_terms=40, shape=(6, 3)
        ), lo.stiefel.random(6, 3, rng=1)
    return lo.Objective(grad=lambda x: -target + 0 * x, shape=(6, 3)), lo.stiefel.random(
        6, 3, rng=1
    )


CASES = {
    "complex": _complex,
    "n < p": _wide,
    "stacks": _stack,
    "blocks": _blocks,
    "other libraries, devices": _strict,
    "without f": _without_f,
}


def runs(row, case):
    """Does a short run go through?"""
    method = ROWS[row](None)
    try:
        problem, x0 = CASES[case](row in SUMS)
        lo.minimize(problem, x0, method, stop=lo.MaxIterations(3), rng=0, on_failure="return")
    except (TypeError, ValueError):
        return False
    return True


def minibatches(row):
    try:
        method = ROWS[row](MiniBatch(8))
    except (TypeError, ValueError):
        return False
    if method is None:
        return False
    lo.minimize(_sum(), method=method, stop=lo.MaxIterations(3), rng=0, on_failure="return")
    return True


def table():
    """{row: {column: bool}} of README."""
    text = README.read_text(encoding="utf-8")
    lines = re.findall(r"^\| `lo\.(.*?)` \|(.*)\|$", text[text.index("| works with |") :], re.M)
    header = re.search(r"^\| works with \|(.*)\|$", text, re.M).group(1).split("|")
    header = [cell.strip() for cell in header]
    return {
        name: dict(zip(header, (cell.strip() == "yes" for cell in cells.split("|")), strict=True))
        for name, cells in lines
        if cells.count("|") == len(header) - 1
    }


def test_the_table_has_all_rows_and_columns():
    found = table()
    assert list(found) == list(ROWS)
    for columns in found.values():
        assert list(columns) == [*CASES, "minibatches"]


@pytest.mark.parametrize("row", ROWS)
def test_a_row(row):
    expected = table()[row]
    found = {case: runs(row, case) for case in CASES} | {"minibatches": minibatches(row)}
    assert found == expected
