"""The data of a figure: one JSON file, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np


class BrokenData(ValueError):
    """A data file that is not what was written."""


def write_data(path: Path, data: dict[str, Any]) -> None:
    """Write plain data with a digest, under another name first: a file that is there is whole."""
    text = json.dumps(plain(data), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"digest": digest}) + "\n" + text + "\n", encoding="utf-8")
    os.replace(draft, path)


def read_data(path: Path) -> dict[str, Any]:
    """What was written; BrokenData where the file is partial, changed, or something else."""
    try:
        first, text = path.read_text(encoding="utf-8").splitlines()
        digest = json.loads(first)["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenData(f"{path} is no data file of a figure: {error}") from None
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise BrokenData(f"{path} has been changed, or was not written to its end")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise BrokenData(f"{path} is no data file of a figure: it holds {type(found).__name__}")
    return found


def plain(value: Any) -> Any:
    """For JSON: arrays as lists of numbers with seven digits, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def array(values: Any) -> np.ndarray:
    """A list of the data as an array; nan for null."""
    return np.array(values, dtype=float)


def circumstances() -> dict[str, Any]:
    """Versions and the machine, as they go into every data file."""
    names = ("landingopt", "numpy", "scipy", "pymanopt", "matplotlib")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }
