"""Fixed steps in PyTorch: the gradient in the same arithmetic as ours, and torch's optimizers.

``torch landing`` is the papers' step with its safe step in plain PyTorch, product for product as the
library takes it; the others are packages. Each is imported where it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from landingopt import problems
from landingopt._xp import Array
from landingopt.bench.large_problems import Large

# name: (the modules that it needs, what to install, which of ours takes the same step)
OPTIMIZERS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "torch-landing": (("torch",), "torch", "landing-step"),
    "torch-LandingSGD": (
        ("torch", "geoopt", "landing"),
        "torch geoopt git+https://github.com/pierreablin/landing",
        "landing-step",
    ),
    "torch-POGO": (("torch", "pogo"), "torch pogo-torch", "POGO"),
    "torch-QR": (("torch", "geoopt"), "torch geoopt", "QR-step"),
}
LANDINGS = ("torch-landing", "torch-LandingSGD", "torch-POGO")


def missing(name: str) -> str:
    """What to install for it, or ""."""
    modules, install, _ = OPTIMIZERS[name]
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if name == "torch-LandingSGD" and not absent:  # other packages have that name, too
        found = hasattr(importlib.import_module("landing"), "LandingSGD")
        absent = [] if found else ["landing.LandingSGD"]
    return (
        f"{name} is left out, there is no {', '.join(absent)}: pip install {install}"
        if absent
        else ""
    )


def fits(name: str, large: Large) -> bool:
    """The authors' optimizer takes square matrices only."""
    return name != "torch-LandingSGD" or large.shape[-1] == large.shape[-2]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch's; what it had is set again at the end."""
    torch: Any = importlib.import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(name: str, large: Large, lam: float, steps: int, count: int) -> tuple[Array, float]:
    """So many steps from the start, a gradient each: the last X, and the seconds of it all."""
    torch: Any = importlib.import_module("torch")
    with threads(count), torch.no_grad():
        gradient = _gradient(torch, large)
        x, advance = _started(torch, name, large, lam)
        begin = time.perf_counter()
        for _ in range(steps):
            advance(gradient(x))
        seconds = time.perf_counter() - begin
        return x.detach().numpy().reshape(large.shape).copy(), seconds


def gradient(large: Large, count: int) -> Callable[[], Array]:
    """The gradient at the start, as an array."""
    torch: Any = importlib.import_module("torch")
    function, x = _gradient(torch, large), torch.from_numpy(large.x0)

    def once() -> Array:
        with threads(count), torch.no_grad():
            return function(x).numpy()

    return once


def _gradient(torch: Any, large: Large) -> Callable[[Any], Any]:
    """That of the problem, in torch: the same products of the same operands."""
    problem = large.problem
    if isinstance(problem, problems.Procrustes):
        a, b = (torch.from_numpy(data) for data in (problem.A, problem.B))
        adjoint = (2.0 * problem.weight * a.transpose(-1, -2)).contiguous()

        def procrustes(x: Any) -> Any:
            residual = torch.matmul(x, a)
            residual -= b
            return torch.matmul(residual, adjoint)

        return procrustes
    data = torch.from_numpy(problem.like)  # K, or the data where K is not formed
    if data.shape[0] == data.shape[1]:
        return lambda x: torch.matmul(data, x).mul_(-1.0)
    back = (data.transpose(-1, -2) * (-1.0 / data.shape[0])).contiguous()
    return lambda x: torch.matmul(back, torch.matmul(data, x))


def _started(torch: Any, name: str, large: Large, lam: float) -> tuple[Any, Callable[[Any], Any]]:
    """X, and what takes a gradient and moves X."""
    x = torch.from_numpy(large.x0.copy())
    if name == "torch-landing":
        return x, _landing(torch, x, large.step, lam)
    if name == "torch-POGO":
        pogo: Any = importlib.import_module("pogo")
        base: Any = importlib.import_module("pogo.base")
        # Three axes are asked for; X has orthonormal columns, theirs by default rows.
        square = large.shape[-1] == large.shape[-2]
        parameter = torch.nn.Parameter(x)
        stack = (lambda a: a) if x.ndim == 3 else (lambda a: a[None])
        optimizer = pogo.POGO([parameter], base.SGD(), large.step, flatten_fn=stack, rows=square)
        return parameter, _by(optimizer, parameter)
    geoopt: Any = importlib.import_module("geoopt")
    manifold = geoopt.Stiefel(canonical=False)
    parameter = geoopt.ManifoldParameter(x, manifold=manifold)
    if name == "torch-QR":
        return parameter, _by(geoopt.optim.RiemannianSGD([parameter], lr=large.step), parameter)
    landing: Any = importlib.import_module("landing")
    optimizer = landing.LandingSGD((parameter,), lr=large.step, lambda_regul=lam, safe_step=0.5)
    return parameter, _by(optimizer, parameter)


def _by(optimizer: Any, parameter: Any) -> Callable[[Any], Any]:
    def advance(gradient: Any) -> None:
        parameter.grad = gradient
        optimizer.step()

    return advance


def _landing(torch: Any, x: Any, eta: float, lam: float, eps: float = 0.5) -> Callable[[Any], Any]:
    """X <- X - min(eta, safe step) Lambda(X), with the papers' safe step for each matrix."""
    n, p = x.shape[-2:]
    identity = torch.eye(p, dtype=x.dtype)

    def advance(g: Any) -> None:
        xt = x.mT
        if n == p:  # Lambda = K X, K = skew(G X^T) + lam (X X^T - I)
            delta = torch.matmul(x, xt) - identity
            k = torch.matmul(g, xt)
            k = 0.5 * (k - k.mT) + lam * delta
            field = torch.matmul(k, x)
        else:  # Lambda = G S / 2 + X (lam (S - I) - C / 2), S = X^T X, C = G^T X
            s = torch.matmul(xt, x)
            c = torch.matmul(g.mT, x)
            delta = s - identity
            field = torch.matmul(g, 0.5 * s) + torch.matmul(x, lam * delta - 0.5 * c)
        x.sub_(_safe(torch, delta, field, eta, lam, eps) * field)

    return advance


def _safe(torch: Any, delta: Any, field: Any, eta: float, lam: float, eps: float) -> Any:
    """The wanted step, capped as :class:`landingopt.steps.Safeguarded` says."""
    d = torch.linalg.matrix_norm(delta, keepdim=True)
    g = torch.linalg.matrix_norm(field, keepdim=True).clamp_min(1e-300)
    pull = lam * d * (1.0 - d)
    root = (pull + torch.sqrt(pull**2 + g**2 * (eps - d).clamp_min(0.0))) / g**2
    return root.clamp_max(min(eta, 0.5 / lam))
