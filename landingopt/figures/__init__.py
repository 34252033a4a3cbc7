"""The figures of the papers: ``landingopt figure NAME``, one file a figure in ``paper_figs``."""

from landingopt.figures.making import Made, figure_names, load_figure, make

__all__ = ["Made", "figure_names", "load_figure", "make"]
