"""Collect the content of the page as one JSON-serialisable record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from attnviz.alignment.report import NAMES, method_name, phrase_names, scored_against, scored_maps
from attnviz.arguments import public
from attnviz.audio import MEL, SpectrogramGrid
from attnviz.audio import log_mel as compute_log_mel
from attnviz.errors import MapsError
from attnviz.events import scorable
from attnviz.events.origin import heard
from attnviz.maps import AttentionMaps, segment_share
from attnviz.plots.heat import SIGNED
from attnviz.plots.spectrogram import SHOWN_RANGE
from attnviz.plots.style import ATTENTION, attention_colours, hertz_ticks, mel_position
from attnviz.report.items import Item, Span, event_spans, first_item, items_of
from attnviz.report.quantised import LEVELS, array_text, audio_text, quantise
from attnviz.report.readings import read_all, readout_label, shown_name
from attnviz.report.solos import solos_of
from attnviz.wording import counted

LIMIT = 10_000_000
"""Maximum size of a page in bytes."""

_MOST_COLUMNS = 4096
"""Columns of a spectrogram of the audio; longer ones show the loudest of neighbouring columns."""

_ASIDE = 400_000
"""Bytes reserved for the code of the page, its tables and the record."""

_SOLOS = 0.4
"""Largest part of the rest of a page that solos may take."""


@public
def payload_of(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    audio: np.ndarray | None = None,
    log_mel: np.ndarray | None = None,
    events: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
    record: Mapping[str, Any] | None = None,
    phrases: Sequence[str | Span] = (),
    name: str = "",
    limit: int = LIMIT,
) -> dict[str, Any]:
    """Collect the content of the page for one image of one prompt.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    audio : numpy.ndarray, shape (samples,), optional
        The clip at 16 kHz, in [-1, 1].
    log_mel : numpy.ndarray, shape (bands, frames), optional
        Its natural-log mel spectrogram, lowest band first. By default, of maps without frequency, that of `audio`.
    events : pandas.DataFrame, optional
        Event table of the clip.
    scores : pandas.DataFrame, optional
        `Alignment.table`: scores of the maps and their controls.
    record : mapping, optional
        Settings of the run. By default, the provenance of the maps.
    phrases : sequence of str or (int, int)
        Phrases to list in addition to the words, the phrases named by events, and the noun phrases and clauses of
        the prompt. The page opens on the first one.
    name : str
        Displayed name of the run on a page with two runs.
    limit : int
        Maximum size in bytes.

    Returns
    -------
    dict
        Text, numbers, lists and dicts. Maps have 8 bits per value (see `attnviz.report.quantised`) and one scale
        each.

    Raises
    ------
    PromptError
        If a phrase is not in the prompt, or is repeated and given without its span.
    MapsError
        If there is no word, prompt or image to show, or if the clip and maps exceed a page of 10 MB.
    AudioError
        If the audio is not one channel of finite samples.
    """
    if not 0 <= sample < maps.images:
        raise MapsError(f"There is no sample {sample}; each prompt has {maps.images} samples, indexed from 0.")
    if not 0 <= prompt_index < len(maps.prompts):
        raise MapsError(
            f"There is no prompt {prompt_index}; the maps have "
            f"{counted(len(maps.prompts), 'prompt')}, indexed from 0."
        )
    if events is not None:
        _check_columns("events", events, ("label", "onset", "offset"))
    if scores is not None:
        _check_columns("scores", scores, ("phrase", "label", "method", "undefined"))
    prompt = maps.prompts[prompt_index]
    named = event_spans(events, prompt)
    asked = [maps.tokens[prompt_index].phrase_span(phrase) for phrase in phrases]
    items = items_of(maps, prompt_index, [*asked, *(span for span in named if span is not None)])
    sound = None if audio is None else audio_text(audio)
    shown = maps.grid
    if not maps.grid.has_freq:
        log_mel, shown = _of_audio(audio, maps.grid)
    spectrogram = None if log_mel is None else _spectrogram(log_mel)
    if spectrogram is not None and not maps.grid.has_freq:
        spectrogram["missing"] = 0  # blank after the end of the audio
    taken = _ASIDE + sum(len(part["data"]) for part in (sound, spectrogram) if part is not None)
    solos: list[dict[str, Any]] = []
    missing: list[str] = []
    if audio is not None:
        solos, missing = solos_of(
            maps, audio, items, prompt_index=prompt_index, sample=sample, room=int(_SOLOS * (limit - taken))
        )
        taken += sum(len(solo["audio"]["data"]) for solo in solos)
    if taken >= limit:
        raise MapsError(
            f"The clip alone takes {taken / 1e6:.1f} MB of at most {limit / 1e6:g} MB. Explain a part of it."
        )
    readings = read_all(maps, items, prompt_index=prompt_index, sample=sample, room=(limit - taken) * 3 // 4)
    return {
        "name": name,
        "prompt": prompt,
        "pieces": _pieces(prompt, items),
        "items": [
            {"label": item.label, "kind": item.kind, "span": None if item.span is None else list(item.span)}
            for item in items
        ],
        "first": _first(maps, items, asked[:1] or named, prompt_index, sample),
        "axes": _axes(maps.grid, shown),
        "levels": LEVELS,
        "audio": sound,
        "solos": solos,
        "spectrogram": spectrogram,
        "readouts": readings.readouts,
        "views": [_average(maps), *(_view(maps, step) for step in readings.steps)],
        "segments": _segments(maps, prompt_index, sample),
        "events": None if events is None else _events(events, named, items),
        "scores": None if scores is None else _scores(scores, sample),
        "record": _sections(_once(record if record is not None else maps.provenance)),
        "notices": [*_notices(maps, sound, spectrogram, events, record or {}), *missing, *readings.notices],
    }


def colours() -> dict[str, str]:
    """Return the colour map of each quantity, as in `attnviz.plots`: 256 RGB colours in base64."""
    tables = {
        "spectrogram": mpl.colormaps["magma"],
        "map": attention_colours(ATTENTION),
        "signed": attention_colours(SIGNED, 1.0),
    }
    places = np.linspace(0.0, 1.0, 256)
    return {
        name: array_text(np.round(table(places)[:, :3] * 255).astype(np.uint8)) for name, table in tables.items()
    }


def _first(
    maps: AttentionMaps, items: Sequence[Item], named: Sequence[Span | None], prompt_index: int, sample: int
) -> int:
    heats = [item.read(maps, prompt_index=prompt_index, sample=sample) for item in items]
    heard = ~heats[0]["padding"].to_numpy()
    curves = [np.atleast_2d(heat)[:, heard].mean(axis=0) for heat in heats]
    return first_item(items, named, curves, maps.prompts[prompt_index])


def _pieces(prompt: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Split the prompt at the ends of words with maps. The joined pieces are the prompt."""
    pieces: list[dict[str, Any]] = []
    at = 0
    for number, item in enumerate(items):
        if item.span is None or item.kind != "word":
            continue
        start, end = item.span
        if start > at:
            pieces.append({"text": prompt[at:start], "item": None})
        pieces.append({"text": prompt[start:end], "item": number})
        at = end
    return [*pieces, {"text": prompt[at:], "item": None}] if at < len(prompt) else pieces


def _axes(grid: SpectrogramGrid, shown: SpectrogramGrid) -> dict[str, Any]:
    """Return the axes of the page: seconds of the maps, and hertz of what is shown, if anything has them."""
    return {
        "seconds": grid.seconds,
        "audio_seconds": grid.seconds if grid.audio_seconds is None else grid.audio_seconds,
        "flat": not grid.has_freq,
        "fmin": shown.fmin,
        "fmax": shown.fmax,
        "hertz": [round(float(hz), 2) for hz in shown.freq(shown.bands)] if shown.has_freq else [],
        "ticks": [{"hz": hz, "at": float(mel_position(shown, hz))} for hz in hertz_ticks(shown)]
        if shown.has_freq
        else [],
    }


def _of_audio(audio: np.ndarray | None, grid: SpectrogramGrid) -> tuple[np.ndarray | None, SpectrogramGrid]:
    """Return a spectrogram of the audio over the seconds of maps without frequency, and its grid."""
    columns = round(grid.seconds * MEL.sampling_rate / MEL.hop_length)
    if audio is None or len(audio) < MEL.shortest or columns < 1:
        return None, grid
    found = compute_log_mel(np.asarray(audio, dtype=np.float32))[:, :columns]
    blank = np.full((found.shape[0], columns), np.nan)  # after the end of the audio
    blank[:, : found.shape[1]] = found
    pooled = -(-columns // _MOST_COLUMNS)
    padded = np.pad(blank, ((0, 0), (0, -columns % pooled)), constant_values=np.nan)
    loudest = np.fmax.reduce(padded.reshape(len(padded), -1, pooled), axis=2)
    return loudest, SpectrogramGrid(height=MEL.n_mels, width=columns)


def _segments(maps: AttentionMaps, prompt_index: int, sample: int) -> list[dict[str, Any]]:
    """Return what the keys of each kind receive together, averaged over layers and heads; of attention only."""
    if maps.content["method"] != "attention":
        return []
    table = segment_share(maps, prompt_index=prompt_index, sample=sample)
    rows = []
    for kind, own in table.groupby("kind", sort=False):
        keys = own["keys"].iloc[0]
        label = {"text": "words", "rest": "keys that were not stored"}.get(str(kind), str(kind))
        rows.append(
            {
                "label": label,
                "keys": None if kind == "rest" else int(keys),
                "share": _number(own["share"].mean()),
                "mark": "first" if kind == "text" else "",
            }
        )
    return rows


def _spectrogram(log_mel: np.ndarray) -> dict[str, Any] | None:
    if np.ndim(log_mel) != 2:
        raise MapsError(f"log_mel has the shape {np.shape(log_mel)}; (bands, frames) is needed.")
    if not np.isfinite(log_mel).any():
        return None
    values = np.asarray(log_mel, dtype=np.float64)
    data, low, high = quantise(values, SHOWN_RANGE)
    missing = int((~np.isfinite(values)).sum())
    rows, columns = values.shape
    return {
        "rows": rows, "columns": columns, "low": low, "high": high, "missing": missing, "data": array_text(data),
    }  # fmt: skip


def _average(maps: AttentionMaps) -> dict[str, Any]:
    number = len(set(maps.timesteps))
    return {"label": f"average of {number} timesteps" if number > 1 else "the only timestep", "step": None}


def _view(maps: AttentionMaps, step: int) -> dict[str, Any]:
    first = maps[maps.layers[0]]
    timestep = float(first["timestep"].to_numpy()[first["step"].to_numpy() == step][0])
    return {"label": f"step {step + 1} of {first.sizes['step']}, timestep {timestep:g}", "step": step}


def _events(events: pd.DataFrame, named: Sequence[Span | None], items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the events of non-zero length with the words and phrases of the prompt that overlap their spans."""
    lasting = events[scorable(events)]
    rows = []
    for span, by_listener, (_, row) in zip(named, heard(lasting).tolist(), lasting.iterrows(), strict=True):
        words = [
            at
            for at, item in enumerate(items)
            if span is not None and item.span is not None and item.span[0] < span[1] and item.span[1] > span[0]
        ]
        rows.append(
            {
                "label": str(row["label"]),
                "items": words,
                "heard": by_listener,
                **{name: _number(row.get(name)) for name in ("onset", "offset", "low", "high")},
            }
        )
    return rows


def _check_columns(name: str, table: pd.DataFrame, needed: Sequence[str]) -> None:
    if missing := [column for column in needed if column not in table.columns]:
        raise MapsError(f"{name} lacks the columns {missing}; it has {[str(column) for column in table.columns]}.")


def _scores(table: pd.DataFrame, sample: int) -> dict[str, Any]:
    """Tabulate scores with one row per phrase and method, averaged over the draws of a control."""
    if "image" in table.columns:
        table = table[table["image"] == sample]
    names = [
        name for name in NAMES if name in table.columns and pd.to_numeric(table[name], "coerce").notna().any()
    ]
    rows = []
    shown = table.assign(text=phrase_names(table))
    for (_, phrase, method), draws in shown.groupby(["phrase", "text", "method"], sort=False, dropna=False):
        reason = draws["undefined"].fillna("").iloc[0]
        values = [_number(pd.to_numeric(draws[name], "coerce").mean()) for name in names]
        rows.append(
            {"phrase": phrase, "method": method_name(str(method)), "draws": len(draws),
             "undefined": str(reason), "values": values}
        )  # fmt: skip
    readouts, widths = scored_maps(table)
    return {
        "names": [NAMES[name] for name in names],
        "rows": rows,
        "against": scored_against(table),
        "readout": shown_name(readouts[0]) if len(readouts) == 1 else None,
        "of": " and ".join(map(readout_label, readouts)) or "unknown (the table of scores does not name it)",
        "columns": " and ".join(f"{width:g}" for width in widths),
    }


def _once(record: Mapping[str, Any]) -> dict[str, Any]:
    """Remove entries that duplicate the provenance, such as the requested model."""
    used = record.get("provenance")
    if not isinstance(used, Mapping):
        return dict(record)
    kept: dict[str, Any] = {}
    for name, value in record.items():
        if name == "model" and isinstance(value, Mapping):
            kept[name] = {inner: one for inner, one in value.items() if inner not in used}
        elif name not in used or value not in (None, used[name]):
            kept[name] = value
    return kept


def _sections(record: Mapping[str, Any], title: str = "") -> list[dict[str, Any]]:
    """Return a nested record as titled sections of names and texts, which keeps all digits of seeds."""
    own = [[str(name), _text(value)] for name, value in record.items() if not _nested(value)]
    sections = [{"title": title, "rows": own}] if own else []
    for name, value in record.items():
        if _nested(value):
            sections += _sections(value, f"{title} / {name}" if title else str(name))
    return sections


def _nested(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(one) for one in value) or "none"
    if value is None or value == {}:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _notices(
    maps: AttentionMaps,
    sound: Mapping[str, Any] | None,
    spectrogram: Mapping[str, Any] | None,
    events: pd.DataFrame | None,
    record: Mapping[str, Any],
) -> list[str]:
    warned = record.get("warnings")
    notices = [str(one) for one in warned] if isinstance(warned, list) else []
    if not maps.complete:
        notices.append("The run was interrupted; its maps are of the steps before the interrupt.")
    if sound is None:
        notices.append("These maps have no audio to play.")
    if spectrogram is None:
        notices.append("These maps have no spectrogram, or it has no finite value.")
    elif spectrogram["missing"]:
        notices.append(f"{spectrogram['missing']} values of the spectrogram are not finite and are left blank.")
    if events is not None and (short := int((~scorable(events)).sum())):
        notices.append(f"Not drawn: {short} of {counted(len(events), 'event')}, of zero length.")
    return notices


def _number(value: object) -> float | None:
    number = float("nan") if value is None else float(str(value))
    return number if np.isfinite(number) else None
