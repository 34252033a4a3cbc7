"""Fixtures for every test module: the array libraries, and a seeded generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("landingopt", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("landingopt")


class Arrays:
    """One array library, in which a test makes its data and whose results it reads.

    ``to(values)`` makes an array of a NumPy one, ``host(x)`` goes back (and refuses an array of
    another library or device), and ``wrap(f)`` makes a function of this library's arrays out of one
    of NumPy arrays; dicts and tuples of arrays are converted entry by entry.
    """

    def __init__(self, name):
        self.name = name
        if name.startswith("numpy"):
            self.xp = np
        elif name.startswith("strict"):
            self.xp = pytest.importorskip(
                "array_api_strict", reason="array-api-strict is not installed"
            )
            self.device = self.xp.Device("device1" if name.endswith("device1") else "CPU_DEVICE")
        elif name == "torch":
            self.xp = pytest.importorskip("torch", reason="PyTorch is not installed")
        else:
            self.xp = pytest.importorskip("cupy", reason="CuPy is not installed")
            if not self.xp.cuda.is_available():
                pytest.skip("CuPy finds no CUDA device")

    def to(self, values):
        if isinstance(values, dict):
            return {key: self.to(value) for key, value in values.items()}
        if isinstance(values, tuple):
            return tuple(self.to(value) for value in values)
        values = np.array(values)
        if self.name == "numpy-readonly":
            values.flags.writeable = False
        if self.xp is np:
            return values
        if self.name.startswith("strict"):
            return self.xp.asarray(values, device=self.device)
        return self.xp.from_numpy(values) if self.name == "torch" else self.xp.asarray(values)

    def host(self, x):
        if isinstance(x, dict):
            return {key: self.host(value) for key, value in x.items()}
        if isinstance(x, tuple):
            return tuple(self.host(value) for value in x)
        if self.xp is np:
            assert isinstance(x, (np.ndarray, np.generic, float))
            return np.asarray(x)
        if self.name.startswith("strict"):
            assert x.device == self.device
            return np.asarray(x.to_device(self.xp.Device("CPU_DEVICE")))
        if self.name == "torch":
            assert isinstance(x, self.xp.Tensor)
            return x.resolve_conj().numpy()
        return self.xp.asnumpy(x)

    def wrap(self, function):
        return lambda *xs: self.to(function(*(self.host(x) for x in xs)))


LIBRARIES = [
    "numpy",
    "numpy-readonly",
    "strict",
    "strict-device1",
    "torch",
    pytest.param("cupy", marks=pytest.mark.gpu),
]


@pytest.fixture(params=LIBRARIES)
def arrays(request):
    """Each array library in turn; the ones that are not there are skipped, with the reason."""
    return Arrays(request.param)


@pytest.fixture
def xp(arrays):
    """The namespace of the array library in turn."""
    return arrays.xp


@pytest.fixture
def rng(request):
    """A generator of this test's own: seeded by its name, so that tests do not depend on order."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture(scope="module")
def quick_figure(tmp_path_factory):
    """Each figure of the papers once, quickly; made where a test asks for it."""
    from landingopt.figures import make

    out, done = tmp_path_factory.mktemp("figures"), {}

    def of(name):
        if name not in done:
            done[name] = make(name, out, quick=True)
        return done[name]

    return of
