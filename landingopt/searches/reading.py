"""A trial of a search where reading a number back has a price: one transfer for all that is read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.fields import Form, GradientForm
from landingopt.point import Point
from landingopt.space import Space

# Of what is expected of ||Y^H Y - I||_F: beyond, the passes are not planned but looked at.
_FAR = 0.8


class Trial:
    """Moves to a trial point, and reads what is known there.

    Where X - eta F is expected near enough the manifold, the Newton–Schulz passes are planned with the
    expected distance, and whether it was right is one of the numbers that are read.
    """

    def __init__(self, space: Space, moves: list[Any]):
        self.space, self.moves = space, moves
        # Where reading is cheap the passes are looked at: they may then be fewer.
        self._plans = [space.accelerator and hasattr(move, "planned") for move in moves]
        self._expected, self._base, self._length = math.inf, math.inf, 0.0
        # Of ||F||: about what a direction that is not psi has off the tangent space.
        self._leak = 0.5
        self._deltas: list[Array | None] = []
        self._bounds: list[Any] = []
        self._fine: list[Any] = []  # True, or whether the move went well, where the data lives
        self._first: list[Any] = []  # ||Y^H Y - I||_F of planned passes

    def expect(self, d: Any, length: Any, normal: Any, tangent: bool) -> None:
        """What to expect of ||Y^H Y - I||_F at Y = X - eta F, from d, eta ||F||_F and eta ||Phi||_F.

        It is Delta - eta (X^H F + F^H X) + eta^2 F^H F, and X^H psi = skew(X^H G) - Delta Phi. Of
        other directions the middle term is what it was in the last trial, twice.
        """
        rounding = 64.0 * self.space.unit_roundoff * self.space.size_p
        self._length = 0.0 if tangent else float(np.max(length))
        far = d * (1.0 + 2.0 * normal) + length * length
        self._base = float(np.max(1.01 * far)) + rounding
        self._expected = self._base + self._leak * self._length

    def look(self) -> None:
        """Expect nothing: the passes of the next move are looked at."""
        self._expected = math.inf

    def move(self, point: Point, new: Point, direction: list[Form], eta: Any, tol: float) -> bool:
        """Place ``new``; False where it is known on the host that a move has failed."""
        space, x = self.space, []
        self._deltas, self._bounds, self._fine, self._first = [], [], [], []
        for i, (block, form, move) in enumerate(zip(space.blocks, direction, self.moves)):
            first, fine = None, True
            if self._plans[i] and self._expected <= _FAR:
                placed, bound, delta, first = move.planned(form, eta, new.x[i], tol, self._expected)
            else:
                placed, bound, delta, fine = move.apply(form, eta, new.x[i], tol)
            if space.frozen is not None:
                placed = block.kernels.replace(placed, space.frozen, point.x[i])
            x.append(placed)
            self._deltas.append(delta)
            self._bounds.append(bound if block.stiefel else None)
            self._fine.append(fine if block.stiefel else True)
            self._first.append(first)
        new.place(x)
        # What lives elsewhere is read with everything else.
        here = [fine for fine in self._fine if isinstance(fine, (bool, np.bool_, np.ndarray))]
        return space.separable or all(bool(np.all(fine)) for fine in here)

    def read(self, new: Point, also: list[list[Any]]) -> tuple[Any, bool, list[Any]]:
        """Numbers of ``new``, evaluated and with its field, in one transfer.

        Sets f, the merit, the gradient norm and the distance's bound. Returns whether all went well (one
        for each matrix of a separable stack), whether what was planned holds, and the totals of
        ``also``, [quantity][block].
        """
        space, forms = self.space, new.forms
        nothing = [None] * len(forms)
        normals = [form if isinstance(form, GradientForm) else None for form in forms]
        fun, norms, phis, products, bounds, fine, first, *more = space.gather(
            [
                [new.fun, *nothing[1:]],
                [form.norm() for form in forms],
                [form and form.phi_norm() for form in normals],
                [
                    None if delta is None else block.kernels.dot(form.phi, delta)
                    for block, form, delta in zip(space.blocks, forms, self._deltas)
                ],
                self._bounds,
                self._fine,
                self._first,
                *also,
            ]
        )
        for form, norm, phi in zip(normals, norms, phis):
            if form is not None:
                form.known(norm, phi)
        new.fun = fun[0] if space.separable else float(np.ravel(fun[0])[0])
        new.merit = new.fun
        if any(delta is not None for delta in self._deltas):
            new.merit = new.fun - 0.5 * space.total(products)
        new.gradient_norm = space.combine(norms)
        known = [bound for bound in bounds if bound is not None]
        new.distance_bound = (
            known[0]
            if space.separable
            else float(np.sqrt(sum(np.sum(np.square(bound)) for bound in known)))
        )
        holds = self._held([each for each in first if each is not None])
        ok: Any = np.asarray(fine[0]) != 0 if space.separable else all(np.all(f) for f in fine)
        s = space.scalars
        ok = s.isfinite(new.merit) & s.isfinite(new.gradient_norm) & ok
        return ok, holds, [space.total(values) for values in more]

    def _held(self, first: list[Any]) -> bool:
        """Is what was found no more than was expected; learns for the next trial."""
        found = np.ravel(first)
        found = found[np.isfinite(found)]  # of a matrix that is not, no number is
        if not found.size:
            return True
        worst = float(found.max())
        if self._length:
            self._leak = max(2.0 * (worst - self._base) / self._length, 0.5 * self._leak)
        return worst <= self._expected
