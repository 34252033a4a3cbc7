"""The command ``landingopt figure``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

SHORT_HELP = "Make the figures of the papers."
EPILOG = """\b
Examples:
  landingopt figure --list
  landingopt figure procrustes --quick
  landingopt figure all --out figures
"""


def figure(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help='Figures, or "all".')
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the figures.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: seconds each, and no timings claimed.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("figures"),
    force: Annotated[
        bool, typer.Option("--force", help="Compute anew what is up to date.")
    ] = False,
    progress: Annotated[
        bool | None, typer.Option(help="A progress bar; by default on a terminal.")
    ] = None,
) -> None:
    """Compute figures of the talk and the papers, and draw them: NAME.json, NAME.png, NAME.pdf.

    What is up to date is left alone; a data file that is broken, partial or of another version of the
    figure or the library is computed again. Exit code 0 where every claim of the figures holds, else 1.
    """
    from landingopt.cli import UserError, _on_terminal, _one_line_errors, _say
    from landingopt.figures.making import NotWritable, check_files, figure_names, load_figure, make

    with _one_line_errors():
        known = figure_names()
        if list_:
            width = max(map(len, known))
            for name in known:
                typer.echo(f"{name.ljust(width)}  {load_figure(name).TITLE}")
            return
        if not names:
            raise UserError("name a figure, or all; `landingopt figure --list` lists them")
        for name in names:
            if name != "all" and name not in known:
                raise UserError(f"there is no figure {name!r}; there are {', '.join(known)}")
        chosen = known if "all" in names else list(dict.fromkeys(names))
        try:
            for name in chosen:
                check_files(name, out, quick=quick)
        except NotWritable as error:
            raise UserError(str(error)) from None
        bar = None
        if _on_terminal() if progress is None else progress:
            from tqdm import tqdm

            bar = tqdm(total=len(chosen), unit="figure", dynamic_ncols=True)
        holds = True
        for name in chosen:
            if bar is not None:
                bar.set_description(name)
            made = make(name, out, quick=quick, force=force, say=_say)
            state = "computed" if made.computed else "drawn" if made.drawn else "up to date"
            typer.echo(f"{made.png}  ({state}; {made.seconds:.0f} s of computing)")
            typer.echo(
                "\n".join(
                    textwrap.wrap(made.caption, 98, initial_indent="  ", subsequent_indent="  ")
                )
            )
            for sentence, true in made.claims:
                typer.echo(f"  {'holds' if true else 'FAILS'}: {sentence}")
                holds = holds and true
            if bar is not None:
                bar.update()
        if bar is not None:
            bar.close()
    raise typer.Exit(0 if holds else 1)
