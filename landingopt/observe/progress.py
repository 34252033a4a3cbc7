"""The progress bar (tqdm), on standard error; only where it is asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Progress:
    """Iterations done, and the quantities that the run is watched by."""

    def __init__(self, label: str, limit: float):
        from tqdm import tqdm

        self._bar = tqdm(
            total=int(limit) if math.isfinite(limit) else None,
            desc=label or None,
            unit="it",
            dynamic_ncols=True,
            mininterval=0.2,
        )

    def update(self, row: Any) -> None:
        self._bar.n = row.iteration
        self._bar.set_postfix_str(
            f"f {np.max(row.fun):.6g}  |grad| {np.max(row.gradient_norm):.1e}  "
            f"distance {np.max(row.distance):.1e}",
            refresh=False,
        )
        self._bar.update(0)

    def close(self) -> None:
        self._bar.close()
