"""Searches: how a step is chosen and taken. The loops over trials live here."""

from landingopt.searches.line_search import LineSearch
from landingopt.searches.open_loop import OpenLoop
from landingopt.searches.wolfe import Wolfe

__all__ = ["LineSearch", "OpenLoop", "Wolfe"]
