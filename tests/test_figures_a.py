"""The figures on the method itself: its field, distance, drift through rounding, cost of a step."""

import numpy as np
import pytest

import landingopt as lo
from landingopt.figures import load_figure
from landingopt.figures.data import read_data

NAMES = ("landing_field", "distance", "drift", "step_cost")


@pytest.mark.parametrize("name", NAMES)
def test_all_claims_hold(quick_figure, name):
    figure = quick_figure(name)
    assert figure.claims
    assert [sentence for sentence, holds in figure.claims if not holds] == []


@pytest.mark.parametrize("name", NAMES)
def test_data_are_complete_and_files_light(quick_figure, name):
    figure = quick_figure(name)
    data = read_data(figure.data)
    assert data["settings"] and data["numbers"] and data["quick"] is True
    assert 10_000 < figure.png.stat().st_size < 150_000
    assert figure.pdf.stat().st_size < 150_000
    assert figure.data.stat().st_size < 100_000
    assert len(figure.caption) > 100 and figure.caption == data["caption"]
    assert figure.caption.startswith("Quick version: small sizes. ")


@pytest.mark.parametrize("name", NAMES)
def test_drawn_again_from_the_file_alone(quick_figure, name):
    data = read_data(quick_figure(name).data)
    figure = load_figure(name).draw(data)
    for axes in figure.axes:
        assert axes.get_title() and (axes.lines or axes.collections)


# -- negative controls --------------------------------------------------------------------------


def test_orthogonality_is_of_the_skew_part():
    """The plain projection G - X sym(X^T G) is not orthogonal to grad N off the manifold."""
    module = load_figure("landing_field")
    rng = np.random.default_rng(0)
    X, G = rng.standard_normal((2, 5, 5))
    R, normal = module.parts(X, G)
    C = X.T @ G
    other = G - X @ (0.5 * (C + C.T))

    def cosine(a, b):
        return abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))

    assert cosine(R, normal) < 1e-14 < 1e-3 < cosine(other, normal)


def test_without_attraction_the_distance_never_falls(quick_figure):
    """lam = 0: it rises for ever; what the figure claims of the landing is not so of any method."""
    module = load_figure("distance")
    problem = lo.problems.Procrustes.random(10, rng=0)
    method = lo.Method(
        lo.searches.OpenLoop(lo.steps.Constant(1e-3)),
        lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(0.0)),
    )
    x0 = lo.stiefel.random(10, rng=1)
    trace = lo.minimize(problem, x0, method, stop=lo.MaxIterations(300), rng=0).trace
    assert np.argmax(trace["distance"]) > 250
    assert module._turns([0.1, 0.3, 0.2, 0.25, 0.1]) > 0.0


def test_textbook_moves_are_retractions():
    """They drift because of rounding only: in exact arithmetic, nearly, they stay on the manifold."""
    module = load_figure("drift")
    X = lo.stiefel.random(8, rng=0)
    A = np.random.default_rng(1).standard_normal((8, 8))
    Z = 1e-3 * (A - A.T) @ X
    for move in (
        module.textbook_exponential,
        module.textbook_cayley,
        module.pymanopt_exponential,
    ):
        Y = move(X, Z)
        assert module._distance(Y) < 1e-13
        assert np.linalg.norm(Y - X - Z) < 10.0 * np.linalg.norm(Z) ** 2


def test_drift_would_be_seen(quick_figure):
    """Slopes of the library's moves are told apart from those of the textbook's."""
    module, numbers = load_figure("drift"), read_data(quick_figure("drift").data)["numbers"]
    for length in ("short", "long"):
        assert min(numbers[f"slope, {length}"][n] for n in module.TEXTBOOK) > 0.3
    assert max(abs(numbers["slope, short"][n]) for n in module.RETRACTIONS) < 0.15


def test_every_step_was_timed(quick_figure):
    data = read_data(quick_figure("step_cost").data)
    module = load_figure("step_cost")
    expected = {"products", "landing", "POGO", *module.RETRACTIONS}
    for cell in data["cells"].values():
        assert expected <= set(cell["seconds"])
        for seconds in cell["seconds"].values():
            assert len(seconds) == len(cell["p"]) and all(s > 0.0 for s in seconds)
    if module._cupy() is None:
        assert data["settings"]["gpu"] == "not measured"


def test_products_are_counted():
    """POGO has one more than the landing, for square X: the count tells methods apart."""
    module = load_figure("step_cost")
    assert module._products(10, 10) == 3.0
    module._methods = lambda eta: {"landing": lo.pogo(eta)}
    assert module._products(10, 10) == 4.0


def test_what_is_claimed_of_pymanopts_retractions():
    """All sizes count, and one method that is slower here than there is enough to fail."""
    module = load_figure("step_cost")
    p = [8, 100, 200]
    names = ["products", "landing", *module.RETRACTIONS]

    def holds(**theirs):
        seconds = {name: [2.0] * 3 for name in names} | {
            "products": [0.9] * 3,
            "landing": [1.0] * 3,
        }
        seconds |= {f"pymanopt {name}": theirs.get(name, [2.0] * 3) for name in module.PYMANOPT}
        cells = {"square float64": {"p": p, "seconds": seconds}}
        parts = ("landing over the cheapest retraction", "over pymanopt's")
        return module._timing_claims(cells, {part: {} for part in parts})[-1]

    sentence, true = holds(QR=[1.8, 2.2, None])
    assert true and "0.99 x (QR; least 0.90)" in sentence
    for name in module.PYMANOPT:
        assert not holds(**{name: [1.6, 2.0, 2.0]})[1]  # p = 8 alone: 0.93 in the mean
