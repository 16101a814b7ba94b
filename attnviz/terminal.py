"""What the commands say on the terminal: results, warnings and errors, in words or as JSON."""

from __future__ import annotations

import functools
import inspect
import io
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console, RenderableType

from attnviz.errors import AttnVizError, AttnVizWarning

console = Console()
complaints = Console(stderr=True)

IN_PART = 3
"""Exit status of a command that did a part of what it was asked for."""

_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print warnings and errors only: no results, no progress.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]


@dataclass(frozen=True)
class Talk:
    """How a command talks: `quiet` and `as_json` as asked for, and the warnings shown so far."""

    quiet: bool = False
    as_json: bool = False
    warned: list[str] = field(default_factory=list)


_NAME = r"(?:'[^']*'|\"[^\"]*\")"
_LIST = re.compile(rf"[\[(]({_NAME}(?:, {_NAME})*),?[\])]")
"""A list or tuple of texts as Python shows it: messages of the library are read in Python, too."""

_TALK: ContextVar[Talk] = ContextVar("talk", default=Talk())  # noqa: B039  # of no command: never written to


class DoneInPartError(Exception):
    """A command did a part of what it was asked for; its result holds what, and what not."""

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def command(run: Callable[..., Mapping[str, Any]]) -> Callable[..., None]:
    """Make a command of a function that returns its result, of what JSON can hold, text by text as it goes.

    The command has the options ``--quiet`` and ``--json`` too. It ends with status 1 where attnviz refuses
    something (one message, no traceback), 3 where a part was done, 130 where it is interrupted; bugs show their
    traceback.
    """

    @functools.wraps(run)
    def wrapped(*args: Any, quiet: bool, as_json: bool, **kwargs: Any) -> None:
        print_whatever()
        talk = Talk(quiet, as_json)
        token = _TALK.set(talk)
        try:
            with _reported(), warnings_shown(talk.warned):
                _quieten_imports()
                _answer(run(*args, **kwargs))
        finally:
            _TALK.reset(token)

    own = inspect.signature(run, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("quiet", _Quiet), ("as_json", _Json))
    ]
    wrapped.__signature__ = own.replace(  # type: ignore[attr-defined]  # read by inspect, and so by typer
        parameters=[*own.parameters.values(), *more], return_annotation=None
    )
    wrapped.__annotations__ = {name: one.annotation for name, one in wrapped.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return wrapped


def print_whatever() -> None:
    """Let no character end a command: what the terminal's encoding has not is printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def talk() -> Talk:
    """Return how the command that runs talks."""
    return _TALK.get()


def say(text: str) -> None:
    """Print text as it is, whole lines, to be copied or searched: no markup, and wrapped by the terminal alone."""
    if not (talk().quiet or talk().as_json):
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def show(table: RenderableType) -> None:
    """Print a table or marked-up text."""
    if not (talk().quiet or talk().as_json):
        console.print(table)


def announce(text: str) -> None:
    """Say on stderr what is begun, before what takes long to import or to load."""
    if not talk().quiet:
        complaints.print(f"{text} ...", style="dim", markup=False, highlight=False, soft_wrap=True)


def complain(title: str, text: str, colour: str) -> None:
    """Print a warning or error on stderr, its title in colour."""
    complaints.print(f"[{colour}]{title}:[/] ", end="")
    complaints.print(printable(_LIST.sub(r"\1", text)), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Return the text with what is not Unicode (a file name in another encoding) escaped."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def numbers(value: Any) -> Any:
    """Return what JSON can hold: NaN and infinity are null, arrays and NumPy's numbers plain, paths text."""
    if isinstance(value, Mapping):
        return {str(key): numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(one) for one in value]
    if isinstance(value, Path):
        return printable(str(value))
    if hasattr(value, "tolist"):
        return numbers(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(value) if isinstance(value, str) else value


def rows(table: Any) -> list[dict[str, Any]]:
    """Return a data frame's rows as JSON holds them."""
    plain = table.astype(object)
    return [numbers(row) for row in plain.where(plain.notna(), None).to_dict("records")]


@contextmanager
def warnings_shown(warned: list[str]) -> Iterator[None]:
    """Print attnviz's own warnings as they come, and list them; ignore those of the libraries beneath.

    Python's ``-W`` option and ``PYTHONWARNINGS`` bring the libraries' back, as Python prints them.
    """

    def shown(
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
        warnings.showwarning = shown
        yield


def quieten_libraries() -> None:
    """Keep what diffusers and transformers say about themselves off the terminal (errors still show)."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken at once, before anything is imported that takes long.

    Raises
    ------
    OutputError
        Something is there, and `overwrite` is not set; or nothing can be written there.
    """
    from attnviz.io.storage import check_free

    # Whether what is there may be replaced is looked at where its kind is known.
    check_free(out, overwrite=overwrite)


def _quieten_imports() -> None:
    """Keep what diffusers and transformers say while they are imported off the terminal."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


def _answer(result: Mapping[str, Any]) -> None:
    if talk().as_json:
        typer.echo(json.dumps(numbers({**result, "warnings": talk().warned}), indent=2, allow_nan=False))


@contextmanager
def _reported() -> Iterator[None]:
    """Print attnviz's own errors as one message and stop with exit status 1; let bugs show their traceback."""
    try:
        yield
    except DoneInPartError as part:
        _answer(part.result)
        complain("Done in part", str(part), "yellow")
        raise typer.Exit(IN_PART) from None
    except AttnVizError as error:
        if talk().as_json:
            _answer({"error": type(error).__name__, "message": str(error)})
        complain(type(error).__name__, str(error), "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complaints.print("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
