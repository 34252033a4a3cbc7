"""Compute and draw figures: what is up to date is left alone, what is broken is made again.

A figure is a file of ``paper_figs`` with ``TITLE``, ``CAPTION``, ``compute(quick) -> dict`` and
``draw(data) -> matplotlib Figure``. ``compute`` returns plain data: ``settings``, whatever ``draw``
needs, ``numbers`` (what was measured) and ``claims``: sentences, each with whether it holds, which say
what the figure shows of what the papers state. ``CAPTION`` says what differs from them, and why; in its
place a file may have ``caption(data) -> str``, where sizes or measured numbers are in the words. A file
whose full figure depends on more than itself and the library, as on an environment variable, says so by
``variant() -> str``; the quick figure never depends on it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from landingopt.figures.data import BrokenData, circumstances, plain, read_data, write_data

_PACKAGE = Path(__file__).resolve().parents[1]
_NEEDED = ("TITLE", "compute", "draw")
QUICK = "Quick version: small sizes. "
# What a whole picture begins and ends with; a PDF may have a line break after it.
_WHOLE = {".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), ".pdf": (b"%PDF-", b"%%EOF")}


class NotWritable(OSError):
    """A place where a figure's files cannot be written."""


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
    if not hasattr(module, "CAPTION") and not hasattr(module, "caption"):
        missing.insert(0, "CAPTION")
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

    Raises
    ------
    NotWritable
        The files cannot be written there.
    """
    data_file, png, pdf = files = check_files(name, out, quick=quick)
    module = load_figure(name)
    key = _key(name, module, quick)
    data = None if force else _known(data_file, key, say)
    computed = data is None
    if data is None:
        begin = time.perf_counter()
        found = module.compute(quick)
        seconds = time.perf_counter() - begin
        data = plain({
            "figure": name, "title": module.TITLE, "quick": quick, "key": key,
            **circumstances(), "seconds": seconds, **found,
        })  # fmt: skip
        data["caption"] = _caption(module, data)
        write_data(data_file, data)
        data = read_data(data_file)
    drawn = computed or not _newer(files[1:], data_file)
    if drawn:
        figure = module.draw(data)
        _save(figure, png, dpi=figure.dpi)
        _save(figure, pdf)
    claims = [(str(sentence), bool(holds)) for sentence, holds in data.get("claims", [])]
    return Made(
        name, module.TITLE, data_file, png, pdf, computed, drawn, float(data["seconds"]), claims,
        str(data["caption"]),
    )  # fmt: skip


def check_files(name: str, out: Path, *, quick: bool = False) -> tuple[Path, Path, Path]:
    """The data file and the pictures of a figure; their folder is made where it is missing.

    Raises
    ------
    NotWritable
        ``out`` cannot be a folder, or a folder has the name of a file.
    """
    stem = f"{name}-quick" if quick else name
    data, png, pdf = (out / f"{stem}.{kind}" for kind in ("json", "png", "pdf"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        folders = [path for path in (data, png, pdf) if path.is_dir()]
    except OSError as error:
        reason = "it is a file" if out.is_file() else error.strerror or error
        raise NotWritable(f"{out} cannot be the folder of figures: {reason}") from None
    if folders:
        raise NotWritable(f"{folders[0]} is a folder; a file of the figure {name} has its name")
    if not os.access(out, os.W_OK | os.X_OK):
        raise NotWritable(f"{out} cannot be written to")
    return data, png, pdf


def _key(name: str, module: ModuleType, quick: bool) -> str:
    """Of all that the data follow from: the figure's file, the library, the sizes, the variant."""
    source = hashlib.sha256((folder() / f"{name}.py").read_bytes()).hexdigest()
    variant = module.variant() if hasattr(module, "variant") and not quick else ""
    parts = (source, _library(), "quick" if quick else "full", variant)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _library() -> str:
    """The hash of the library's own files."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if not name.startswith("paper_figs/"):  # each figure's file is in its own key
            digest.update(f"{name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _caption(module: ModuleType, data: dict[str, Any]) -> str:
    text = module.caption(data) if hasattr(module, "caption") else module.CAPTION
    return f"{QUICK if data['quick'] else ''}{text}"


def _save(figure: Any, path: Path, **options: Any) -> None:
    """Under another name first: a picture that is there is whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(draft, format=path.suffix[1:], **options)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _known(path: Path, key: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The data of this version of the figure and the library, or None."""
    if not path.exists():
        return None
    try:
        data = read_data(path)
    except BrokenData as error:
        say(f"{error}: computed again")
        return None
    if data.get("key") != key:
        say(f"{path} is of another version of the figure or the library: computed again")
        return None
    return data


def _newer(pictures: tuple[Path, ...], data: Path) -> bool:
    made = data.stat().st_mtime
    return all(_whole(path) and path.stat().st_mtime >= made for path in pictures)


def _whole(picture: Path) -> bool:
    """Is it there, from its first bytes to its last?"""
    begin, end = _WHOLE[picture.suffix]
    try:
        content = picture.read_bytes()
    except OSError:
        return False
    return content.startswith(begin) and content.rstrip(b"\r\n").endswith(end)
