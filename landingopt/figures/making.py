"""Compute and draw figures: what is up to date is left alone, what is broken is made again.

A figure is a file of ``paper_figs`` with ``TITLE``, ``CAPTION``, ``compute(quick) -> dict`` and
``draw(data) -> matplotlib Figure``. ``compute`` returns plain data: ``settings``, whatever ``draw``
needs, ``numbers`` (what was measured) and ``claims``: sentences, each with whether it holds, which say
what the figure shows of what the papers state. ``CAPTION`` says what differs from them, and why.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from landingopt.figures.data import BrokenData, circumstances, read_data, write_data

_PACKAGE = Path(__file__).resolve().parents[1]
_NEEDED = ("TITLE", "CAPTION", "compute", "draw")


@dataclass(frozen=True)
class Made:
    """A figure that has been made, or was up to date.

    Attributes
    ----------
    name, title : str
    data, png, pdf : Path
    computed, drawn : bool
        False: it was up to date.
    seconds : float
        Of computing, now or when it was.
    claims : list of (sentence, bool)
    caption : str
        What differs from the talk or the paper, and why.
    """

    name: str
    title: str
    data: Path
    png: Path
    pdf: Path
    computed: bool
    drawn: bool
    seconds: float
    claims: list[tuple[str, bool]]
    caption: str


def folder() -> Path:
    """Where the figures' files are: in the installed package, or beside it in a checkout."""
    for place in (_PACKAGE / "paper_figs", _PACKAGE.parent / "paper_figs"):
        if place.is_dir():
            return place
    raise FileNotFoundError("the folder paper_figs is neither in the package nor beside it")


def figure_names() -> list[str]:
    """The figures there are."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def load_figure(name: str) -> ModuleType:
    """The module of a figure.

    Raises
    ------
    ValueError
        No such figure; those that there are are listed.
    """
    path = folder() / f"{name}.py"
    if name not in figure_names():
        raise ValueError(f"there is no figure {name!r}; there are {', '.join(figure_names())}")
    spec = importlib.util.spec_from_file_location(f"landingopt_figure_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    missing = [part for part in _NEEDED if not hasattr(module, part)]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}")
    return module


def make(
    name: str,
    out: Path,
    *,
    quick: bool = False,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Made:
    """Make one figure: NAME.json, NAME.png and NAME.pdf in ``out`` (NAME-quick with ``quick``).

    Parameters
    ----------
    name : str
        One of :func:`figure_names`.
    out : Path
        A folder; made where it is missing.
    quick : bool
        Small sizes, seconds instead of minutes.
    force : bool
        Compute anew what is up to date.
    say : callable
        Told why something is computed.

    Returns
    -------
    Made
    """
    module = load_figure(name)
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-quick" if quick else name
    data_file, png, pdf = (out / f"{stem}.{kind}" for kind in ("json", "png", "pdf"))
    source = hashlib.sha256((folder() / f"{name}.py").read_bytes()).hexdigest()
    data = None if force else _known(data_file, source, say)
    computed = data is None
    if data is None:
        begin = time.perf_counter()
        found = module.compute(quick)
        data = {
            "figure": name, "title": module.TITLE, "caption": module.CAPTION, "quick": quick,
            "source": source,
            **circumstances(), "seconds": time.perf_counter() - begin, **found,
        }  # fmt: skip
        write_data(data_file, data)
        data = read_data(data_file)
    drawn = computed or not _newer((png, pdf), data_file)
    if drawn:
        figure = module.draw(data)
        figure.savefig(png, dpi=figure.dpi)
        figure.savefig(pdf)
    claims = [(str(sentence), bool(holds)) for sentence, holds in data.get("claims", [])]
    return Made(
        name, module.TITLE, data_file, png, pdf, computed, drawn, float(data["seconds"]), claims,
        module.CAPTION,
    )  # fmt: skip


def _known(path: Path, source: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The data of this version of the figure's file, or None."""
    if not path.exists():
        return None
    try:
        data = read_data(path)
    except BrokenData as error:
        say(f"{error}: computed again")
        return None
    if data.get("source") != source:
        say(f"{path} is of another version of the figure: computed again")
        return None
    return data


def _newer(pictures: tuple[Path, ...], data: Path) -> bool:
    made = data.stat().st_mtime
    return all(p.exists() and p.stat().st_size and p.stat().st_mtime >= made for p in pictures)
