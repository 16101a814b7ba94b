"""Assemble template, style, JavaScript and payload into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from attnviz.arguments import public
from attnviz.errors import AttnVizError, MapsError, OutputError
from attnviz.io.storage import whole_or_nothing
from attnviz.report.pairing import pairs_of
from attnviz.report.payload import LIMIT, colours, payload_of
from attnviz.report.saved_run import SavedRun, read_saved_run, read_source
from attnviz.text.words import find_phrase

FILE = "report.html"
_BEGIN = b"<!doctype html>\n<!-- attnviz report -->\n"
_FIELD = re.compile(r"\{\{(\w+)\}\}")
_PROGRAM = ("dom.js", "maps.js", "plot.js", "player.js", "tracks.js", "tables.js", "panel.js", "app.js")
_START = (
    "\nattnvizReport(document.getElementById('report'), JSON.parse(document.getElementById('payload').text));\n"
)


@public
def write_report(
    run: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    phrases: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write an HTML page of one saved run, or of two runs side by side. No model is loaded.

    The page is a single file below 10 MB that works offline. It contains the audio with a playhead over the
    spectrogram and the maps; a map for each word and phrase, readout and (if stored) denoising step; events
    (given, or heard by the listener) and scores, if the run has them; and the settings of the run. Two runs share
    the time, the selection and the colour scale, and their words are aligned.

    Parameters
    ----------
    run : path-like
        Run folder written by ``attnviz generate``, ``attnviz explain`` or ``attnviz edit``. An edit with maps of
        its source is shown beside the source.
    other : path-like, optional
        Another run folder, shown beside the first.
    out : path-like, optional
        Output file. By default, ``report.html`` in the run folder, or ``RUN-OTHER.html`` beside the first folder
        for two runs.
    phrases : sequence of str
        Phrases to list in addition to the words; with two runs, phrases of either prompt. The page opens on the
        first one.
    overwrite : bool
        Replace an existing report.

    Returns
    -------
    pathlib.Path
        The output file.

    Raises
    ------
    AttnVizError
        If a folder is not a run folder, a file in it is damaged, no word can be shown, or the clip is too long.
    PromptError
        If a phrase is in none of the prompts.
    OutputError
        If a report exists already, or its folder cannot be written. No partial file is left.
    """
    saved = _named_runs(run, other)
    target = Path(out) if out is not None else _place(run, other)
    spoken = _spoken(list(saved.values()), phrases)
    # Check the output path before reading the maps, which is slow.
    with whole_or_nothing(target, overwrite=overwrite, replaceable=is_report) as partial:
        payloads = [
            payload_of(
                one.maps, audio=one.audio, log_mel=one.log_mel, events=one.events, scores=one.scores,
                record=one.record, phrases=own, name=name, limit=LIMIT // len(saved),
            )
            for (name, one), own in zip(saved.items(), spoken, strict=True)
        ]  # fmt: skip
        partial.write_bytes(page_of(*payloads))
    return target


@public
def page_of(*payloads: Mapping[str, Any], framed: bool = False) -> bytes:
    """Assemble the page from one or two payloads; see `attnviz.report.payload.payload_of`.

    The payload cannot inject markup or code: it is JSON without ``<`` and is displayed as text. The content
    security policy of the page allows only its own script, by hash, and no network requests.

    Parameters
    ----------
    *payloads : mapping
    framed : bool
        Set for a page in a notebook frame, which adapts its height to the page.

    Raises
    ------
    MapsError
        If there is no payload.
    OutputError
        If the page exceeds 10 MB.
    """
    if not payloads:
        raise MapsError("There is no payload; a page shows one or two, as attnviz.report.payload_of gives them.")
    style, code = template_file("style.css"), program_text() + _START
    first, *others = payloads
    whole = {
        "runs": payloads,
        "unlike": _unlike(payloads),
        "pairs": [pairs_of(first["items"], other["items"]) for other in others],
        "colours": colours(),
    }
    prompts = " / ".join(dict.fromkeys(str(one["prompt"]) for one in payloads))
    page = _filled(
        template_file("template.html"),
        {
            "policy": _policy(style, code),
            "title": html.escape(" ".join(prompts.split())[:120]),
            "prompt": html.escape(prompts),
            "style": style,
            "framed": " attnviz-framed" if framed else "",
            "payload": json.dumps(whole, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
            "program": code,
        },
    ).encode("utf-8", errors="replace")
    if len(page) > LIMIT:
        raise OutputError(
            f"The report has {len(page) / 1e6:.1f} MB, which exceeds the limit of {LIMIT / 1e6:g} MB. Is the "
            "prompt or the table of scores very long?"
        )
    return page


def is_report(path: Path) -> bool:
    """Return whether a path is a file that starts like a report."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def program_text() -> str:
    """Return the JavaScript of the page, which defines ``attnvizReport(root, payload)``."""
    return "\n".join(map(template_file, _PROGRAM))


def template_file(name: str) -> str:
    """Read a file of the page template."""
    return (files("attnviz.report") / name).read_text(encoding="utf-8")


def _named_runs(run: str | os.PathLike[str], other: str | os.PathLike[str] | None) -> dict[str, SavedRun]:
    """Read the runs of a page and return them by their displayed names."""
    saved = read_saved_run(run)
    if other is None:
        source = read_source(saved)
        return {"": saved} if source is None else {"source": source, "edit": saved}
    places = [Path(run).resolve(), Path(other).resolve()]
    if places[0] == places[1]:
        raise AttnVizError(f"The run {run} was given twice; give one run, or two different ones.")
    names = [place.name for place in places]
    if names[0] == names[1]:
        names = [f"{place.parent.name}/{place.name}" for place in places]
    if names[0] == names[1]:
        names = [str(place) for place in places]
    return dict(zip(names, (saved, read_saved_run(other)), strict=True))


def _place(run: str | os.PathLike[str], other: str | os.PathLike[str] | None) -> Path:
    if other is None:
        return Path(run) / FILE
    place = Path(run).resolve()
    return place.with_name(f"{place.name}-{Path(other).resolve().name}.html")


def _spoken(saved: Sequence[SavedRun], phrases: Sequence[str]) -> list[list[str]]:
    """Assign phrases to the runs with matching prompts; the first run reports phrases that match no prompt."""
    has = [{phrase for phrase in phrases if find_phrase(one.maps.prompts[0], phrase)} for one in saved]
    has[0] |= set(phrases) - set().union(*has)
    return [[phrase for phrase in phrases if phrase in own] for own in has]


def _unlike(payloads: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence if two runs' scores are of different readouts or columns; otherwise an empty text."""
    scored = [one for one in payloads if one.get("scores")]
    how = [_scored(one["scores"]) for one in scored]
    if len(set(how)) < 2:
        return ""
    each = "; ".join(f"{one['name']}: {text}" for one, text in zip(scored, how, strict=True))
    return f"The scores of the two runs are of different readouts or columns and cannot be compared: {each}."


def _scored(scores: Mapping[str, Any]) -> str:
    width = f" in columns of {scores['columns']} ms" if scores["columns"] else ""
    return f"readout {scores['of']}{width}"


def _filled(template: str, fields: Mapping[str, str]) -> str:
    """Fill a template in one pass, so that inserted text is never interpreted as a field."""
    return _FIELD.sub(lambda found: fields[found[1]], template)


def _policy(style: str, program: str) -> str:
    def hashed(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"

    return (
        f"default-src 'none'; script-src {hashed(program)}; style-src {hashed(style)}; media-src blob:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
