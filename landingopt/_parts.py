"""Which kind of part a recipe is: one in another's place is refused where a method is composed."""

from __future__ import annotations

from typing import Any

# Rooms of the library whose parts are of one kind. A user's own part may live anywhere.
_ROOMS = (
    "baselines directions estimators fields methods moves optimizers retractions samplers searches "
    "steps"
)


def check_part(part: Any, name: str, rooms: str, example: str, verb: str = "start") -> Any:
    """``part`` itself, with a method ``verb``, of one of ``rooms`` or not the library's; or an error.

    The error says what was given, and what to write instead.
    """
    kind = part if isinstance(part, type) else type(part)
    home = kind.__module__.split(".")
    room = home[1] if home[0] == "landingopt" and len(home) > 1 else ""
    foreign = room in _ROOMS.split() and room not in rooms.split()
    if isinstance(part, type) or foreign or not callable(getattr(part, verb, None)):
        reason = f", which is of lo.{room}" if foreign and room != "methods" else ""
        if isinstance(part, type) and not foreign:
            reason = f": call it, {part.__name__}(...)"
        raise TypeError(f"{name} must be {example}, got {part!r}{reason}")
    return part
