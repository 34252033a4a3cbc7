"""What the documentation shows must run: docstrings, README's code, examples."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import landingopt

ROOT = Path(__file__).parents[1]
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(landingopt.__path__, "landingopt.")
    if not name.endswith("__main__")
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
OPTIONAL = ("jax", "torch", "autograd", "cupy")


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False
    )
    skipped = []
    for test in doctest.DocTestFinder().find(module, name):
        source = "".join(example.source for example in test.examples)
        missing = [m for m in OPTIONAL if re.search(rf"\bimport {m}\b|autodiff\.{m}\(", source)]
        missing = [m for m in missing if importlib.util.find_spec(m) is None]
        if missing:
            skipped.append(f"{test.name} needs {', '.join(missing)}")
            continue
        runner.run(test)
    assert runner.failures == 0
    if skipped and not runner.tries:
        pytest.skip("; ".join(skipped))


def test_every_public_function_has_a_docstring():
    for name, value in vars(landingopt).items():
        if not name.startswith("_") and callable(value):
            assert value.__doc__, name


def test_readme_has_code():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("source", BLOCKS, ids=[f"block{i}" for i in range(len(BLOCKS))])
def test_readme_code_runs(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in OPTIONAL:
        if re.search(rf"\bimport {name}\b|autodiff\.{name}\(", source):
            pytest.importorskip(name, reason=f"this block of the README needs {name}")
    if "cupy" in source:
        pytest.importorskip("cupy", reason="this block of the README needs a GPU and CuPy")
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_example_runs(path, tmp_path):
    pytest.importorskip("sklearn", reason="the examples use scikit-learn's digits")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
