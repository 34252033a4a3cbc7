"""The figures of the stochastic experiments, the rates and the benchmark; and how figures are made."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from landingopt.cli import app
from landingopt.figures import figure_names, load_figure, make, making
from landingopt.figures.data import BrokenData, read_data, write_data

NAMES = ("ica", "online_pca", "procrustes", "rates", "solver_profile")


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_figure_shows_what_it_claims(name, quick_figure):
    made = quick_figure(name)
    assert made.computed and made.drawn
    assert made.claims and all(holds for _, holds in made.claims), made.claims
    data = read_data(made.data)
    assert {"settings", "numbers", "claims", "versions", "machine", "key"} <= set(data)
    assert made.data.stat().st_size < 400_000
    assert 10_000 < made.png.stat().st_size < 150_000
    assert made.pdf.stat().st_size < 150_000
    assert made.caption == data["caption"] and made.caption.startswith(
        "Quick version: small sizes. "
    )


@pytest.mark.parametrize("name", ["ica", "online_pca", "procrustes", "solver_profile"])
def test_a_caption_tells_the_sizes_of_its_own_data(name, quick_figure):
    """The words follow the settings; with those of another run they are other words."""
    module, data = load_figure(name), read_data(quick_figure(name).data)
    assert not hasattr(module, "CAPTION")
    settings, text = data["settings"], quick_figure(name).caption
    if name == "ica":
        assert "2000 samples" in text and "batches of 50" in text and "10000" not in text
        other = data | {"settings": settings | {"samples": 10_000}}
        assert "10000 samples" in module.caption(other)
    if name == "online_pca":
        assert "divided by 10, 10 epochs for 60" in text and "not timed" in text
        assert "2.06, 3.30, 3.38, 3.05" in text
        five = module.caption(data | {"settings": settings | {"divided by": 5, "epochs": 40}})
        assert "divided by 5 (LANDINGOPT_FULL_SIZE=1 keeps it), 40 epochs for 60" in five
        one = module.caption(data | {"settings": settings | {"divided by": 1, "epochs": 60}})
        assert "The published size, 60 epochs, on" in one and "divided" not in one
    if name == "procrustes":
        step = data["numbers"]["safe step"]
        assert f"cuts {step['cut']} steps" in text and step["cut"] > 0
    if name == "solver_profile":
        assert "2 problems (Procrustes p = 10, unbalanced Procrustes 60 x 20), one start" in text
        assert "a gradient norm of 1e-06 of" in text and "at most 1 s" in text
        assert settings["tols"] == [1e-6]


def test_online_pca_names_the_levels_that_are_reached(quick_figure):
    module, data = load_figure("online_pca"), read_data(quick_figure("online_pca").data)
    sentence = data["claims"][0][0]
    for p, ratios in data["numbers"]["epochs, landing over QR"].items():
        curves = data["curves"][p]
        for name, share in module.LEVELS.items():
            excess = [curves[method]["excess"] for method in ("landing", "QR")]
            reached = all(min(each) <= share * each[0] for each in excess)
            assert (name in ratios) == reached
        assert module._reached(p, ratios) in sentence
    assert module._reached(3, {"10 %": 2.0}) == "p = 3: 2.000 x to 10 %, 1 % not reached"
    assert set(data["numbers"]["the same, published"]) == {"100", "200", "500", "1000"}


def test_online_pca_holds_every_size_against_qr(quick_figure, monkeypatch, tmp_path):
    """One size off by 6 % is enough."""
    module = load_figure("online_pca")
    monkeypatch.setattr(module, "_gap", lambda ours, theirs, speed, until: 0.0)
    curves = read_data(quick_figure("online_pca").data)["curves"]
    found = [
        {n: {k: np.array(v) for k, v in c.items()} for n, c in f.items()} for f in curves.values()
    ]
    monkeypatch.setattr(module, "_curves", lambda problem, *_: found[problem.shape[1] != 10])
    assert all(holds for _, holds in module.compute(True)["claims"])
    gaps = iter([0.06, 0.0, 0.0, 0.0])
    monkeypatch.setattr(module, "_gap", lambda ours, theirs, speed, until: next(gaps))
    assert [holds for _, holds in module.compute(True)["claims"]] == [True, False, True]


def test_online_pca_of_the_published_size_is_another_figure(monkeypatch):
    module = load_figure("online_pca")
    monkeypatch.delenv("LANDINGOPT_FULL_SIZE", raising=False)
    keys = [making._key("online_pca", module, quick) for quick in (True, False)]
    monkeypatch.setenv("LANDINGOPT_FULL_SIZE", "1")
    module = load_figure("online_pca")
    large = [making._key("online_pca", module, quick) for quick in (True, False)]
    assert large[0] == keys[0] and len({*keys, *large}) == 3


# -- how figures are made: with one that takes no time ---------------------------------------------

SOURCE = '''
"""A line."""
from matplotlib.figure import Figure

TITLE = "A line"
CAPTION = "None."


def compute(quick):
    with open({log!r}, "a") as file:
        file.write("computed ")
    y = [1.0, 2.0, float("nan")]
    return {{"settings": {{}}, "numbers": {{}}, "y": y, "claims": [["y rises", {holds}]]}}


def draw(data):
    with open({log!r}, "a") as file:
        file.write("drawn ")
    assert data["y"] == [1.0, 2.0, None]
    figure = Figure(figsize=(1, 1), dpi=50)
    figure.add_axes((0, 0, 1, 1)).plot(data["y"])
    return figure
'''


class Folder:
    """A folder of figures with one in it, and what was done with it."""

    def __init__(self, path, monkeypatch):
        self.path, self.log, self.out = path / "figures", path / "log", path / "out"
        self.path.mkdir()
        monkeypatch.setattr(making, "folder", lambda: self.path)
        self.write()

    def write(self, holds=True, more=""):
        (self.path / "a_line.py").write_text(SOURCE.format(log=str(self.log), holds=holds) + more)

    def make(self, **options):
        """What was done, and what was said."""
        self.log.write_text("")
        said = []
        made = make("a_line", self.out, say=said.append, **options)
        assert (made.computed, made.drawn) == tuple(
            word in self.log.read_text() for word in ("computed", "drawn")
        )
        return made, self.log.read_text().split(), " ".join(said)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path, monkeypatch)


def test_what_is_up_to_date_is_left_alone(folder):
    made, done, said = folder.make()
    assert done == ["computed", "drawn"] and not said
    times = [path.stat().st_mtime_ns for path in (made.data, made.png, made.pdf)]
    again, done, said = folder.make()
    assert done == [] and not said and again.claims == [("y rises", True)]
    assert times == [path.stat().st_mtime_ns for path in (made.data, made.png, made.pdf)]
    assert folder.make(force=True)[1] == ["computed", "drawn"]
    assert folder.make(quick=True)[0].data.name == "a_line-quick.json"


@pytest.mark.parametrize("kind", ["png", "pdf"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "cut at its end", "headless"])
def test_a_picture_that_is_not_whole_is_drawn_from_the_data(folder, kind, how):
    picture = getattr(folder.make()[0], kind)
    whole = picture.read_bytes()
    left = {
        "empty": b"", "cut": whole[: len(whole) // 2], "cut at its end": whole[:-4],
        "headless": whole[9:],
    }  # fmt: skip
    picture.unlink() if how == "missing" else picture.write_bytes(left[how])
    assert folder.make()[1] == ["drawn"]
    assert abs(picture.stat().st_size - len(whole)) < 50
    assert folder.make()[1] == []


def test_a_picture_is_written_whole_or_not_at_all(folder, monkeypatch):
    made = folder.make()[0]
    before = made.png.read_bytes()

    def broken(self, path, **options):
        Path(path).write_bytes(b"half")
        raise RuntimeError("no space")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(RuntimeError):
        folder.make(force=True)
    assert made.png.read_bytes() == before
    assert sorted(p.suffix for p in folder.out.iterdir()) == [".json", ".pdf", ".png"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text[:-5],
        lambda text: text.replace("2.0", "3.0"),
        lambda text: text.splitlines()[0],
        lambda text: "",
        lambda text: "no JSON\nat all\n",
        lambda text: json.dumps(json.loads(text.splitlines()[1])),
        lambda text: "[]\n{}\n",
        lambda text: text + "\n{}",
    ],
)
def test_broken_data_is_computed_again_and_never_drawn(folder, broken):
    path = folder.make()[0].data
    whole = path.read_text()
    path.write_text(broken(whole))
    with pytest.raises(BrokenData):
        read_data(path)
    _, done, said = folder.make()
    assert done == ["computed", "drawn"] and str(path) in said
    assert read_data(path)["y"] == [1.0, 2.0, None]


def test_data_that_is_no_text_is_computed_again(folder):
    folder.make()[0].data.write_bytes(b"\xff\xfe\x00\x01\n\x80\n")
    assert folder.make()[1] == ["computed", "drawn"]


def test_another_version_of_the_figure_is_computed_again(folder):
    folder.make()
    folder.write(more="\n# changed\n")
    _, done, said = folder.make()
    assert done == ["computed", "drawn"] and "another version" in said


def test_another_version_of_the_library_is_computed_again(folder, monkeypatch):
    folder.make()
    monkeypatch.setattr(making, "_library", lambda: "another")
    _, done, said = folder.make()
    assert done == ["computed", "drawn"] and "the library" in said
    assert folder.make()[1] == []


def test_the_hash_of_the_library_is_of_all_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "_PACKAGE", tmp_path)
    (tmp_path / "part").mkdir()
    hashes = set()
    for name, text in (("a.py", "1"), ("part/b.py", "1"), ("part/b.py", "2"), ("c.py", "2")):
        (tmp_path / name).write_text(text)
        hashes.add(making._library.__wrapped__())
    assert len(hashes) == 4
    for other in ("notes.txt", "paper_figs/figure.py"):  # a figure's file is in its own key
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("1")
        assert making._library.__wrapped__() in hashes


def test_data_of_the_quick_figure_is_none_of_the_full_one(folder):
    quick = folder.make(quick=True)[0]
    copy = quick.data.with_name("a_line.json")
    shutil.copy(quick.data, copy)
    made, done, said = folder.make()
    assert made.data == copy and done == ["computed", "drawn"] and str(copy) in said
    assert read_data(copy)["quick"] is False and not made.caption.startswith("Quick")


def test_a_variant_is_a_figure_of_its_own_but_for_the_quick_one(folder, monkeypatch):
    folder.write(more="\nimport os\n\ndef variant():\n    return os.environ.get('VARIANT', '')\n")
    for word, quick in (("", False), ("large", False), ("", True)):
        monkeypatch.setenv("VARIANT", word)
        assert folder.make(quick=quick)[1] == ["computed", "drawn"]
        assert folder.make(quick=quick)[1] == []
    monkeypatch.setenv("VARIANT", "large")
    assert folder.make(quick=True)[1] == []


def test_a_caption_may_be_made_of_the_data(folder):
    assert folder.make()[0].caption == "None."
    more = "\ndef caption(data):\n    return f\"{len(data['y'])} points.\"\n"
    folder.write(more=more)
    made = folder.make()[0]
    assert made.caption == "3 points." == read_data(made.data)["caption"]
    assert folder.make()[0].caption == "3 points."
    assert folder.make(quick=True)[0].caption == "Quick version: small sizes. 3 points."
    assert (
        "Quick version: small sizes. 3 points." in run("all", "--quick", "--out", folder.out).output
    )


def test_an_error_leaves_no_data_behind(folder):
    folder.write(more="\ndef compute(quick):\n    raise RuntimeError('no')\n")
    with pytest.raises(RuntimeError):
        folder.make()
    assert not list(folder.out.iterdir())


def test_data_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_data(path, {"y": 1.0})
    with pytest.raises(TypeError):
        write_data(path, {"y": object()})
    assert read_data(path) == {"y": 1.0} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_figure_without_its_parts_is_refused(folder):
    (folder.path / "half.py").write_text("TITLE = 'half'\n")
    with pytest.raises(ValueError, match="CAPTION, compute, draw"):
        load_figure("half")
    with pytest.raises(ValueError, match="no figure 'nothing'; there are a_line, half"):
        load_figure("nothing")


# -- the command -----------------------------------------------------------------------------------


def run(*words):
    return CliRunner().invoke(app, ["figure", *map(str, words)])


def test_the_command_lists_the_figures():
    result = run("--list")
    assert result.exit_code == 0
    for name in figure_names():
        assert name in result.output and load_figure(name).TITLE in result.output


def test_the_command_knows_its_figures_only(folder):
    result = run("a_lime", "--out", folder.out)
    assert result.exit_code == 2 and "there is no figure 'a_lime'" in result.output
    assert not folder.out.exists()
    assert run("--out", folder.out).exit_code == 2
    folder.out.write_text("a file")
    assert run("a_line", "--out", folder.out).exit_code == 2


def assert_one_line(result, *words):
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert len(result.output.splitlines()) == 1 and result.output.startswith("landingopt: error: ")
    assert all(word in result.output for word in words)


@pytest.mark.parametrize("place", ["a_line.py/sub", "a_line.py", "/dev/null/x", "/dev/null"])
def test_a_place_that_can_be_no_folder_is_one_line(folder, place):
    assert_one_line(run("a_line", "--out", folder.path / place), place)


@pytest.mark.parametrize("kind", ["json", "png", "pdf"])
def test_a_folder_in_the_place_of_a_file_is_one_line(folder, kind):
    taken = folder.out / f"a_line.{kind}"
    taken.mkdir(parents=True)
    assert_one_line(run("a_line", "--out", folder.out), str(taken), "is a folder")
    assert not folder.log.exists()  # nothing was computed for nothing
    with pytest.raises(making.NotWritable):
        folder.make()


def test_all_among_names_means_all(folder):
    shutil.copy(folder.path / "a_line.py", folder.path / "b_line.py")
    result = run("all", "a_line", "--out", folder.out)
    assert result.exit_code == 0
    assert [result.output.count(f"{name}.png") for name in ("a_line", "b_line")] == [1, 1]
    assert_one_line(run("all", "a_lime", "--out", folder.out), "there is no figure 'a_lime'")


@pytest.mark.parametrize("holds", [True, False])
def test_the_exit_code_says_whether_the_claims_hold(folder, holds):
    folder.write(holds=holds)
    for state in ("computed", "up to date"):
        result = run("all", "--out", folder.out)
        assert result.exit_code == (0 if holds else 1)
        assert state in result.output
        assert ("holds: y rises" if holds else "FAILS: y rises") in result.output


def test_the_command_shows_progress_where_it_is_asked_to(folder):
    shutil.rmtree(folder.out, ignore_errors=True)
    assert run("a_line", "--out", folder.out, "--progress").exit_code == 0
