"""What the commands say on the terminal: results, warnings and errors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console

from attnviz.errors import AttnVizError, AttnVizWarning

console = Console()
complaints = Console(stderr=True)


def say(text: str) -> None:
    """Print text as it is, whole lines, to be copied or searched: no markup, and wrapped by the terminal alone."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def complain(title: str, text: str, colour: str) -> None:
    """Print a warning or error on stderr, its title in colour."""
    complaints.print(f"[{colour}]{title}:[/] ", end="")
    complaints.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return the text with what is not Unicode (a file name in another encoding) escaped."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


@contextmanager
def warnings_shown() -> Iterator[list[str]]:
    """Print attnviz's own warnings as they come, and list them; ignore those of the libraries beneath.

    Python's ``-W`` option and ``PYTHONWARNINGS`` bring the libraries' back, as Python prints them.
    """
    warned: list[str] = []

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, AttnVizWarning):
            warned.append(str(message))
            complain("Warning", str(message), "yellow")
        else:
            complaints.print(
                printable(warnings.formatwarning(message, category, filename, lineno, line)),
                end="", markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", AttnVizWarning)
        warnings.showwarning = show
        yield warned


def quieten_libraries() -> None:
    """Keep what diffusers and transformers say about themselves off the terminal (errors still show)."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def reported() -> Iterator[None]:
    """Print attnviz's own errors as one message and stop with exit status 1; let bugs show their traceback."""
    try:
        yield
    except AttnVizError as error:
        complain(type(error).__name__, str(error), "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complaints.print("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
