"""The figures of the stochastic experiments, the rates and the benchmark; and how figures are made."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from landingopt.cli import app
from landingopt.figures import figure_names, load_figure, make, making
from landingopt.figures.data import BrokenData, read_data, write_data

NAMES = ("ica", "online_pca", "rates", "solver_profile")


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_figure_shows_what_it_claims(name, tmp_path):
    made = make(name, tmp_path, quick=True)
    assert made.computed and made.drawn
    assert made.claims and all(holds for _, holds in made.claims), made.claims
    data = read_data(made.data)
    assert {"settings", "numbers", "claims", "versions", "machine", "source"} <= set(data)
    assert made.data.stat().st_size < 400_000
    assert 10_000 < made.png.stat().st_size < 150_000
    assert made.pdf.stat().st_size < 150_000
    assert load_figure(name).CAPTION


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
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_picture_that_is_not_there_is_drawn_from_the_data(folder, kind, how):
    picture = getattr(folder.make()[0], kind)
    picture.unlink() if how == "missing" else picture.write_bytes(b"")
    assert folder.make()[1] == ["drawn"]
    assert picture.stat().st_size > 100


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
