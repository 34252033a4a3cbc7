"""The tube is never left: d <= eps + 10 u p under any gradient, step, lam and eps.

Rounding the entries of x to the dtype alone moves d by u sqrt(p), whatever eps is.
Hypothesis draws the setting; the gradients are adversaries that see the iterate.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

import landingopt as lo

STEPS = 30


# -- adversaries: (x, k, rng) -> gradient of norm about 1 -------------------------------------


def outward(x, k, rng):
    """A rotation in the plane of the two longest left singular vectors: Lambda^H Lambda pushes out."""
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    if x.shape[1] == 1:
        return rotated_out(x, k, rng)
    return (np.outer(u[:, 0], u[:, 1].conj()) - np.outer(u[:, 1], u[:, 0].conj())) @ u @ vh


def rotated_out(x, k, rng):
    """Along the longest right singular vector, orthogonal to the columns of x where there is room."""
    _, _, vh = np.linalg.svd(x, full_matrices=False)
    w = ref.gaussian(rng, x.shape[0], x.dtype)
    w = w - ref.polar(x) @ (ref.H(ref.polar(x)) @ w)
    return np.outer(w, vh[0]) if np.linalg.norm(w) > 1e-6 else outward_or_random(x, k, rng)


def outward_or_random(x, k, rng):
    return outward(x, k, rng) if x.shape[1] > 1 else ref.gaussian(rng, x.shape, x.dtype)


def rank_one(x, k, rng):
    return np.outer(ref.gaussian(rng, x.shape[0], x.dtype), ref.gaussian(rng, x.shape[1], x.dtype))


def random(x, k, rng):
    return ref.gaussian(rng, x.shape, x.dtype)


def alternating(x, k, rng):
    return (-1) ** k * (outward(x, k, rng) + 0.1 * random(x, k, rng))


def nothing(x, k, rng):
    return np.zeros_like(x)


ADVERSARIES = {
    f.__name__: f for f in (outward, rotated_out, rank_one, random, alternating, nothing)
}


def decades(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


setting = st.fixed_dictionaries(
    {
        "shape": st.sampled_from(
            [(1, 1), (2, 2), (5, 5), (6, 3), (4, 1), (3, 6), (3, 4, 4), (2, 5, 3)]
        ),
        "dtype": st.sampled_from(["float64", "float32", "complex128"]),
        "adversary": st.sampled_from(sorted(ADVERSARIES)),
        "scale": decades(-12, 12),
        "step": decades(-6, 12),
        "lam": decades(-2, 2),
        "eps": st.floats(0.05, 0.95),
        "start": st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0)),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def start_of(rng, case):
    """A point with d = start * eps, a hair inside so that rounding to the dtype does not leave."""
    unit = np.finfo(case["dtype"]).eps
    d = case["start"] * max(case["eps"] - 4 * unit * min(case["shape"][-2:]), 0.0)
    return ref.in_tube(rng, case["shape"], d, case["dtype"])


def gradient_of(case):
    adversary, rng = ADVERSARIES[case["adversary"]], np.random.default_rng(case["seed"])
    scale = np.asarray(case["scale"], case["dtype"]).real
    calls = [0]

    def tall(x):
        turned = x.shape[0] < x.shape[1]
        g = adversary(ref.H(x) if turned else x, calls[0], rng)
        return ref.H(g) if turned else g

    def grad(x):
        calls[0] += 1
        g = tall(x) if x.ndim == 2 else np.stack([tall(a) for a in x])
        return (scale * g).astype(x.dtype)

    return grad


def distances(case):
    """d of every iterate (the largest of a stack), measured in extended precision."""
    rng = np.random.default_rng(case["seed"])
    found = []
    options = {name: case[name] for name in ("tangent", "safe", "base") if name in case}
    lo.minimize(
        lo.Objective(grad=gradient_of(case), shape=case["shape"]),
        start_of(rng, case),
        lo.landing(step=case["step"], lam=case["lam"], eps=case["eps"], **options),
        stop=lo.MaxIterations(STEPS),
        record=lo.Every(1),
        callback=lambda row: found.append(
            max(ref.distance(x) for x in row.x.reshape(-1, *row.x.shape[-2:]))
        ),
    )
    return found


def limit(case):
    unit = float(np.finfo(case["dtype"]).eps)
    return case["eps"] + 10 * unit * min(case["shape"][-2:])


@settings(max_examples=400)
@given(setting)
def test_the_tube_is_never_left(case):
    found = distances(case)
    assert found
    assert max(found) <= limit(case)


tangents = st.one_of(
    decades(-2, 2).map(lo.fields.Canonical),
    decades(-2, 2).map(lambda scale: lo.fields.Euclidean(metric_scale=scale)),
    st.builds(lo.fields.BetaMetric, decades(-2, 2), decades(-2, 2)),
    decades(-2, 2).map(lambda scale: lo.fields.NearTangent(metric_scale=scale)),
)
options = st.fixed_dictionaries(
    {
        "tangent": tangents,
        "safe": st.sampled_from(["bound", "exact"]),
        "base": st.sampled_from(
            [
                lo.estimators.Full(),
                lo.estimators.Momentum(0.9),
                lo.estimators.Momentum(0.5, nesterov=True),
                lo.estimators.Adam(0.5, 0.9),
            ]
        ),
    }
)


@settings(max_examples=400)
@given(setting, options)
def test_the_tube_is_never_left_with_any_tangent_safe_step_and_estimator(case, more):
    assert max(distances(case | more)) <= limit(case)


@pytest.mark.parametrize("safe", ["bound", "exact"])
def test_a_tangent_that_is_none_off_the_manifold_leaves_the_tube(monkeypatch, safe):
    """Negative control: with psi, which the table of refusals would not let through."""
    from landingopt import methods

    monkeypatch.setattr(methods, "_REFUSALS", [])
    left = {}
    for name, tangent in {
        "psi": lo.fields.Euclidean(exact=False),
        "exact": lo.fields.Euclidean(),
        "beta": lo.fields.BetaMetric(0.3),
    }.items():
        left[name] = 0
        for seed in range(40):
            case = CORNERS | {
                "shape": (6, 3), "lam": 0.1, "scale": 1.0, "step": 1.0, "eps": 0.3, "seed": seed,
                "adversary": "random", "tangent": tangent, "safe": safe,
            }  # fmt: skip
            left[name] += max(distances(case)) > limit(case)
    assert left["exact"] == left["beta"] == 0
    assert left["psi"] > 20  # the exact step is never shorter than the bound, which is wrong here


CORNERS = {
    "dtype": "float64", "adversary": "outward", "scale": 1e12, "step": 1e12, "eps": 0.95, "start": 1.0,
    "seed": 0, "lam": 1e-2,
}  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (3, 6), (3, 4, 4), (2, 5, 3)])
@pytest.mark.parametrize("lam", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(
    ("dtype", "safe"), [("float32", "bound"), ("float64", "bound"), ("float64", "exact")]
)
def test_the_corners_of_the_settings(shape, lam, scale, dtype, safe):
    for adversary in ADVERSARIES:
        for eps in (0.05, 0.95):
            case = CORNERS | {
                "shape": shape, "lam": lam, "scale": scale, "dtype": dtype, "adversary": adversary,
                "eps": eps, "safe": safe,
            }  # fmt: skip
            assert max(distances(case)) <= limit(case)


def test_without_the_cap_the_tube_is_left():
    """Negative control: the naive formula without 1/(2 lam) leaves, with it never does."""
    rng = np.random.default_rng(0)
    left = {True: 0, False: 0}
    for _ in range(300):
        shape = [(3, 3), (5, 5), (6, 3)][rng.integers(3)]
        lam, eps = 10.0 ** rng.uniform(-1, 1), rng.uniform(0.05, 0.95)
        x0 = ref.in_tube(rng, shape, rng.uniform() * eps)
        g = 10.0 ** rng.uniform(-2, 1) * ref.gaussian(rng, shape)
        for cap in left:
            with np.errstate(all="ignore"):
                xs, *_ = ref.landing(lambda x, g=g: g, x0, 1e12, lam, eps, 1, cap=cap)
            left[cap] += not ref.distance(xs[1]) <= eps * (1 + 1e-13)
    assert left[True] == 0
    assert left[False] >= 20


def test_without_attraction_the_tube_is_kept_too(rng):
    """lam = 0: only the room eps - d is spent; the steps go to zero, the tube stays."""
    x0 = ref.in_tube(rng, (6, 3), 0.1)
    found = []
    lo.minimize(
        lo.Objective(grad=lambda x: random(x, 0, rng), shape=(6, 3)),
        x0,
        lo.landing(step=1e6, lam=0.0, eps=0.3),
        stop=lo.MaxIterations(50),
        record=lo.Every(1),
        callback=lambda row: found.append(ref.distance(row.x)),
    )
    assert max(found) <= 0.3 * (1 + 1e-14)
    assert found[-1] == pytest.approx(0.3, rel=1e-6)


def test_a_start_outside_the_tube_is_refused(rng):
    problem = lo.Objective(grad=lambda x: x, shape=(6, 3))
    with pytest.raises(ValueError, match="outside the tube"):
        lo.minimize(problem, ref.in_tube(rng, (6, 3), 0.51), lo.landing(step=0.1, eps=0.5))
    lo.minimize(
        problem,
        ref.in_tube(rng, (6, 3), 0.5),
        lo.landing(step=0.1, eps=0.5),
        stop=lo.MaxIterations(3),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (40, 20), (2, 6, 3)])
@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9, 1e12])
@pytest.mark.parametrize(
    ("tangent", "safe"),
    [
        (lo.fields.Canonical(), "bound"),
        (lo.fields.Canonical(), "exact"),
        (lo.fields.Euclidean(), "bound"),
        (lo.fields.BetaMetric(0.05), "exact"),
        (lo.fields.NearTangent(), "bound"),
    ],
)
def test_a_normal_gradient_of_any_size(shape, scale, dtype, tangent, safe):
    """G = X M with M Hermitian has R = 0, as at an optimum: what is left is the rounding of G.

    In the left form it is skew, and does not reach the distance. In the right form it does, to first
    order; a step that takes it for a tangent field leaves a float32 tube by more than eps.
    """
    for seed, lam in enumerate([0.01, 1.0, 100.0] * 2):
        rng = np.random.default_rng(seed)
        m = ref.sym(ref.gaussian(rng, (shape[-1], shape[-1]), dtype)) * scale
        case = CORNERS | {"shape": shape, "dtype": dtype}
        for eps in (0.05, 0.95):
            for start in (0.0, 0.5, 1.0):
                case |= {"eps": eps, "start": start}
                found = []
                lo.minimize(
                    lo.Objective(grad=lambda x, m=m: (x @ m).astype(x.dtype), shape=shape),
                    start_of(rng, case),
                    lo.landing(step=1e12, lam=lam, eps=eps, tangent=tangent, safe=safe),
                    stop=lo.MaxIterations(10),
                    record=lo.Every(1),
                    callback=lambda row, found=found: found.append(
                        max(ref.distance(x) for x in row.x.reshape(-1, *row.x.shape[-2:]))
                    ),
                )
                assert max(found) <= limit(case)
