"""Terminal output of the commands: results, warnings and errors, as text or as JSON."""

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
"""Exit status of a command with a partial result."""

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only warnings and errors: no results, no progress.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]


@dataclass(frozen=True)
class Talk:
    """Output options `quiet` and `as_json` of a command, and the warnings shown so far."""

    quiet: bool = False
    as_json: bool = False
    warned: list[str] = field(default_factory=list)


_NAME = r"(?:'[^']*'|\"[^\"]*\")"
_LIST = re.compile(rf"[\[(]({_NAME}(?:, {_NAME})*),?[\])]")
"""A list or tuple of strings in Python syntax, as in messages of the library."""

_OPTIONS = (
    (re.compile(r"race with\s+keep=\(?'(\w+)',?\)?"), r"race with --keep \1 of attnviz generate or explain"),
    (
        re.compile(r"were the maps made with keep=\(?'(\w+)',?\)?", re.IGNORECASE),
        r"Was the run made with --keep \1",
    ),
    (re.compile(r"\breadout='(\w+)'"), r"--readout \1"),
    (re.compile(r"trace with (branch|tokens)='(\w+)'"), r"in Python, trace with \1='\2'"),
)
"""Arguments of Python in messages of the library, and the options for them."""

_TALK: ContextVar[Talk] = ContextVar("talk", default=Talk())  # noqa: B039  # outside commands; never written to


class DoneInPartError(Exception):
    """A command completed only a part of its task; `result` lists what was done and what was not."""

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def command(run: Callable[..., Mapping[str, Any]]) -> Callable[..., None]:
    """Convert a function into a command; the function returns a JSON-compatible result and prints text as it runs.

    The command also has the options ``--quiet`` and ``--json``. The exit status is 1 for an error of attnviz (one
    message, no traceback), 3 for a partial result, 130 after an interrupt. Bugs show their traceback.
    """

    @functools.wraps(run)
    def wrapped(*args: Any, invocation: typer.Context, quiet: bool, as_json: bool, **kwargs: Any) -> None:
        print_whatever()
        talk = Talk(quiet or _given_before(invocation, "quiet"), as_json or _given_before(invocation, "as_json"))
        token = _TALK.set(talk)
        try:
            with _reported(), warnings_shown(talk.warned):
                _quieten_imports()
                _answer(run(*args, **kwargs))
        finally:
            _TALK.reset(token)

    own = inspect.signature(run, eval_str=True)
    more = [
        inspect.Parameter("invocation", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
            for name, option in (("quiet", Quiet), ("as_json", Json))
        ),
    ]
    wrapped.__signature__ = own.replace(  # type: ignore[attr-defined]  # read by inspect, and so by typer
        parameters=[*own.parameters.values(), *more], return_annotation=None
    )
    wrapped.__annotations__ = {name: one.annotation for name, one in wrapped.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return wrapped


def before_command(context: typer.Context, quiet: Quiet = False, as_json: Json = False) -> None:
    """Accept ``--quiet`` and ``--json`` before the name of a command, as callback of a group of commands."""
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


def _given_before(context: Any, name: str) -> bool:
    """Whether an option was given before the name of the running command."""
    group = context.parent
    return group is not None and (bool(group.params.get(name)) or _given_before(group, name))


def print_whatever() -> None:
    """Escape characters that the terminal's encoding lacks, so that printing them does not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def talk() -> Talk:
    """Return the output options of the running command."""
    return _TALK.get()


def say(text: str) -> None:
    """Print plain text in whole lines, to be copied or searched: no markup, wrapped only by the terminal."""
    if not (talk().quiet or talk().as_json):
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def show(table: RenderableType) -> None:
    """Print a table or marked-up text."""
    if not (talk().quiet or talk().as_json):
        console.print(table)


def announce(text: str) -> None:
    """Print on stderr what is about to start, before a slow import or load."""
    if not talk().quiet:
        complaints.print(f"{text} ...", style="dim", markup=False, highlight=False, soft_wrap=True)


def complain(title: str, text: str, colour: str) -> None:
    """Print a warning or error on stderr, with its title in colour."""
    complaints.print(f"[{colour}]{title}:[/] ", end="")
    complaints.print(printable(_LIST.sub(r"\1", in_options(text))), markup=False, highlight=False, soft_wrap=True)


def in_options(text: str) -> str:
    """Return a message of the library with options of the command line in place of arguments of Python."""
    for argument, option in _OPTIONS:
        text = argument.sub(option, text)
    return text


def printable(text: str) -> str:
    """Return the text with non-Unicode characters (file names in another encoding) escaped."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def numbers(value: Any) -> Any:
    """Convert to JSON values: NaN and infinity become null, NumPy values plain ones, paths text."""
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
    """Return the rows of a data frame as JSON values."""
    plain = table.astype(object)
    return [numbers(row) for row in plain.where(plain.notna(), None).to_dict("records")]


@contextmanager
def warnings_shown(warned: list[str]) -> Iterator[None]:
    """Print and collect attnviz's warnings as they occur; ignore those of other libraries.

    Python's ``-W`` option and ``PYTHONWARNINGS`` enable the other libraries' warnings in Python's format.
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
    """Disable informational output of diffusers and transformers (errors still show)."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise at once if an output path is taken, before slow imports.

    Raises
    ------
    OutputError
        If the path exists and `overwrite` is False, or it cannot be written.
    """
    from attnviz.io.storage import check_free

    # Whether the existing output may be replaced is checked later, where its kind is known.
    check_free(out, overwrite=overwrite)


def _quieten_imports() -> None:
    """Disable the output of diffusers and transformers during their import."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


def _answer(result: Mapping[str, Any]) -> None:
    if talk().as_json:
        typer.echo(json.dumps(numbers({**result, "warnings": talk().warned}), indent=2, allow_nan=False))


@contextmanager
def _reported() -> Iterator[None]:
    """Print an error of attnviz as one message and exit with status 1; let bugs show their traceback."""
    try:
        yield
    except DoneInPartError as part:
        _answer(part.result)
        complain("Done in part", str(part), "yellow")
        raise typer.Exit(IN_PART) from None
    except AttnVizError as error:
        if talk().as_json:
            _answer({"error": type(error).__name__, "message": in_options(str(error))})
        complain(type(error).__name__, str(error), "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        complaints.print("Interrupted; nothing was written.")
        raise typer.Exit(130) from None
