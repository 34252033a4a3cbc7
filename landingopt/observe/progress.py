"""The progress bar (tqdm), on standard error; only where it is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Progress:
    """Iterations done, and the quantities that the run is watched by."""

    def __init__(self, label: str, limit: float, epochs: float = math.inf):
        from tqdm import tqdm

        self._epochs = math.isfinite(epochs) and not math.isfinite(limit)
        limit = epochs if self._epochs else limit
        self._bar = tqdm(
            total=int(limit) if math.isfinite(limit) else None,
            desc=label or None,
            unit="epoch" if self._epochs else "it",
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def update(self, row: Any) -> None:
        done = round(row.epoch, 2) if self._epochs else row.iteration
        self._bar.n = done if self._bar.total is None else min(done, self._bar.total)
        known = {
            "f {:.6g}": row.fun,
            "|grad| {:.1e}": row.gradient_norm,
            "distance {:.1e}": row.distance,
        }
        text = [form.format(np.max(value)) for form, value in known.items() if value is not None]
        self._bar.set_postfix_str("  ".join(text), refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        self._bar.close()
