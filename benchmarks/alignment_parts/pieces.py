"""Curves, activity and scores of single clips, which are saved so that an interrupted study can continue."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.alignment.profiling import PROFILED

PICTURE = (64, 256)
"""Rows and columns of the spectrogram saved for figures."""

_ARRAYS = ("share", "energy", "mask")
_DRAWS = ("curves", "heats")
_TEXTS = ("clip", "label", "source", "undefined", "layer")


@dataclass(frozen=True, eq=False)
class Piece:
    """A clip: its phrases by readout, the profile of its maps, and a small spectrogram."""

    phrases: Mapping[str, tuple[AlignedPhrase, ...]]
    profile: pd.DataFrame
    picture: np.ndarray


_PROFILE, _CURVES = "profile.csv.gz", "curves.npz"


def piece_files(piece: Piece) -> dict[str, bytes]:
    """Return the content of the files of a piece, by name."""
    table = piece.profile.to_csv(index=False, float_format="%.5g").encode()
    arrays: dict[str, np.ndarray] = {"picture": piece.picture.astype(np.float16)}
    facts: dict[str, list[dict[str, Any]]] = {}
    for readout, phrases in piece.phrases.items():
        facts[readout] = [_facts(phrase) for phrase in phrases]
        for number, phrase in enumerate(phrases):
            arrays |= {f"{readout}/{number}/{name}": array for name, array in _arrays(phrase).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    return {_PROFILE: gzip.compress(table, mtime=0), _CURVES: buffer.getvalue()}


def load_piece(folder: Path) -> Piece:
    """Read the piece in the folder of a clip."""
    with np.load(folder / _CURVES, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    phrases = {
        readout: tuple(_phrase(one, arrays, f"{readout}/{number}/") for number, one in enumerate(rows))
        for readout, rows in json.loads(str(arrays["facts"])).items()
    }
    # Do not parse names that look like numbers or "NA".
    numbers = {name: [""] for name in ("timestep", *PROFILED)}
    profile = pd.read_csv(
        folder / _PROFILE, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False, na_values=numbers
    )
    return Piece(phrases, profile, arrays["picture"].astype(np.float32))


def load_pieces(folder: Path) -> Iterator[Piece]:
    """Read the pieces of all clips of a corpus, in the order of its plan; clips that failed have none."""
    for path in sorted((folder / "files").iterdir()) if (folder / "files").exists() else ():
        yield load_piece(path)


def picture_of(log_mel: np.ndarray) -> np.ndarray:
    """Average a log-mel spectrogram ``(256, width)`` over `PICTURE` cells, lowest band first."""
    rows, columns = PICTURE
    bands = log_mel.reshape(rows, -1, log_mel.shape[1]).mean(axis=1)
    edges = np.linspace(0, log_mel.shape[1], columns + 1).round().astype(int)
    return np.stack([bands[:, first:last].mean(axis=1) for first, last in pairwise(edges)], 1)


def _facts(phrase: AlignedPhrase) -> dict[str, Any]:
    events = {name: value for name, value in asdict(phrase.events).items() if name not in ("times", "bands")}
    return {
        "events": events,
        "sample": phrase.sample,
        "seconds": phrase.seconds,
        "column_seconds": phrase.column_seconds,
        "seeds": dict(phrase.seeds),
    }


def _arrays(phrase: AlignedPhrase) -> dict[str, np.ndarray]:
    found = {"times": phrase.events.times, "bands": phrase.events.bands}
    found |= {name: getattr(phrase, name) for name in _ARRAYS}
    for kind in _DRAWS:
        found |= {
            f"{kind}/{name}": np.stack(draws).astype(np.float32) for name, draws in getattr(phrase, kind).items()
        }
    return {name: array for name, array in found.items() if array is not None}


def _phrase(facts: dict[str, Any], arrays: Mapping[str, np.ndarray], prefix: str) -> AlignedPhrase:
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    events = facts.pop("events")
    times, bands = own.pop("times"), own.pop("bands", None)
    events["span"] = tuple(events["span"])
    draws = {
        kind: {
            name.removeprefix(f"{kind}/"): tuple(array)
            for name, array in own.items()
            if name.startswith(f"{kind}/")
        }
        for kind in _DRAWS
    }
    plain = {name: own.get(name) for name in _ARRAYS}
    return AlignedPhrase(events=PhraseEvents(**events, times=times, bands=bands), **facts, **plain, **draws)
