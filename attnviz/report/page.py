"""The page: template, style, program and payload put together into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from attnviz.errors import OutputError
from attnviz.io.storage import whole_or_nothing
from attnviz.report.payload import LIMIT, payload_of
from attnviz.report.saved_run import read_saved_run

FILE = "report.html"
_BEGIN = b"<!doctype html>\n<!-- attnviz report -->\n"
_FIELD = re.compile(r"\{\{(\w+)\}\}")
_PROGRAM = ("dom.js", "maps.js", "plot.js", "player.js", "tracks.js", "tables.js", "app.js")
_START = (
    "\nattnvizReport(document.getElementById('report'), JSON.parse(document.getElementById('payload').text));\n"
)


def write_report(run: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write ``report.html`` into a run folder, from what was saved there alone: no model is loaded.

    One file, below 10 MB, that opens in a browser without network: the audio with a playhead over spectrogram
    and maps, a map for each word, readout and (where the maps keep them) denoising step, ground truth and scores
    where the run has them, and how it was made.

    Parameters
    ----------
    run : path-like
        Run folder, as ``attnviz generate`` and ``attnviz explain`` write it.
    overwrite : bool
        Replace a report that is there.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    AttnVizError
        The folder is no run folder, a file in it is damaged, it has no word to show, or its clip is too long.
    OutputError
        There is a report already, or the folder cannot be written to. Nothing half-written is left.
    """
    target = Path(run) / FILE
    saved = read_saved_run(run)
    # The place is looked at before the maps are read one by one, which takes a while.
    with whole_or_nothing(target, overwrite=overwrite, replaceable=is_report) as partial:
        payload = payload_of(
            saved.maps, audio=saved.audio, log_mel=saved.log_mel, events=saved.events, scores=saved.scores,
            record=saved.record,
        )  # fmt: skip
        partial.write_bytes(page_of(payload))
    return target


def page_of(payload: Mapping[str, Any]) -> bytes:
    """Put a page together; see `attnviz.report.payload.payload_of`.

    Nothing in the payload can become markup or code: it is JSON without ``<``, read by the program and shown as
    text, and the page's own policy lets only the program itself run, by its hash, and nothing be fetched.

    Raises
    ------
    OutputError
        The page is above 10 MB.
    """
    style, code = style_text(), program_text() + _START
    page = _filled(
        template_file("template.html"),
        {
            "policy": _policy(style, code),
            "title": html.escape(" ".join(str(payload["prompt"]).split())[:120]),
            "prompt": html.escape(str(payload["prompt"])),
            "style": style,
            "payload": json.dumps(payload, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
            "program": code,
        },
    ).encode("utf-8", errors="replace")
    if len(page) > LIMIT:
        raise OutputError(
            f"The report has {len(page) / 1e6:.1f} MB, and {LIMIT / 1e6:g} MB is the limit. Is the prompt, or the "
            "table of scores, very long?"
        )
    return page


def is_report(path: Path) -> bool:
    """Say whether a path is a file that begins as a report does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def program_text() -> str:
    """Return the page's program: it defines ``attnvizReport(root, payload)``."""
    return "\n".join(map(template_file, _PROGRAM))


def style_text() -> str:
    """Return the page's style, all of it below the class ``attnviz``."""
    return template_file("style.css")


def template_file(name: str) -> str:
    """Read one of the page's own files."""
    return (files("attnviz.report") / name).read_text(encoding="utf-8")


def _filled(template: str, fields: Mapping[str, str]) -> str:
    """Fill a template in one pass: what was filled in is not looked at again, whatever it holds."""
    return _FIELD.sub(lambda found: fields[found[1]], template)


def _policy(style: str, program: str) -> str:
    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"

    return (
        f"default-src 'none'; script-src {hashed(program)}; style-src {hashed(style)}; media-src blob:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
