"""Save alignments in folders: metadata of phrases as JSON, curves and activity as arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from attnviz.alignment.phrases import AlignedPhrase, Draws, PhraseEvents
from attnviz.errors import MapsError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.ownership import Kind
from attnviz.io.paths import FilePath, checked_path
from attnviz.io.storage import whole_folder

FORMAT = "attnviz alignment 1"
_KIND = Kind("alignment")
_FACTS, _ARRAYS = "alignment.json", "curves.npz"
_DAMAGE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
_SINGLE = ("share", "energy", "mask", "times", "bands")


def save_phrases(
    path: FilePath, phrases: Sequence[AlignedPhrase], readout: str, seed: int, *, overwrite: bool
) -> None:
    """Save a pool of phrases in a folder; see `Alignment.save`."""
    arrays = {name: array for number, phrase in enumerate(phrases) for name, array in _arrays(number, phrase)}
    content = {"format": FORMAT, "readout": readout, "seed": seed, "phrases": [_facts(one) for one in phrases]}
    with whole_folder(path, overwrite=overwrite, kind=_KIND) as folder:
        (folder / _FACTS).write_bytes(as_json(content, _FACTS))
        with (folder / _ARRAYS).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_phrases(path: FilePath) -> tuple[tuple[AlignedPhrase, ...], str, int]:
    """Load phrases, readout and seed from a folder written by `save_phrases`; see `Alignment.load`."""
    folder = checked_path(path, "the alignment folder", MapsError)
    content = read_json(folder / _FACTS, error=MapsError, hint="Use a folder written by Alignment.save.")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise MapsError(f"{folder / _FACTS} has the format {found!r}; it must be {FORMAT!r}.")
    try:
        with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
            phrases = tuple(_phrase(number, facts, arrays) for number, facts in enumerate(content["phrases"]))
        return phrases, str(content["readout"]), int(content["seed"])
    except _DAMAGE as damage:
        raise MapsError(f"{folder} is a damaged alignment: {damage}. Was one of its files changed?") from damage


def _facts(phrase: AlignedPhrase) -> dict[str, Any]:
    events = phrase.events
    return {
        "clip": events.clip,
        "label": events.label,
        "class": events.sound_class,
        "span": [int(place) for place in events.span],
        "source": events.source,
        "origin": events.origin,
        "text": events.text,
        "zero_length": int(events.zero_length),
        "clipped": int(events.clipped),
        "sample": int(phrase.sample),
        "seconds": float(phrase.seconds),
        "column_seconds": float(phrase.column_seconds),
        "seeds": {name: int(number) for name, number in phrase.seeds.items()},
        "curves": {name: len(draws) for name, draws in phrase.curves.items()},
        "heats": {name: len(draws) for name, draws in phrase.heats.items()},
    }


def _arrays(number: int, phrase: AlignedPhrase) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a phrase by name. Methods are numbered, because controls may have any name."""
    single = (phrase.share, phrase.energy, phrase.mask, phrase.events.times, phrase.events.bands)
    yield from (
        (f"{number}.{name}", array) for name, array in zip(_SINGLE, single, strict=True) if array is not None
    )
    for kind, methods in (("curves", phrase.curves), ("heats", phrase.heats)):
        for method, draws in enumerate(methods.values()):
            yield from ((f"{number}.{kind}.{method}.{draw}", array) for draw, array in enumerate(draws))


def _phrase(number: int, facts: dict[str, Any], arrays: Any) -> AlignedPhrase:
    share, energy, mask, times, bands = (arrays.get(f"{number}.{name}") for name in _SINGLE)

    def draws(kind: str) -> dict[str, Draws]:
        return {
            name: tuple(arrays[f"{number}.{kind}.{method}.{draw}"] for draw in range(count))
            for method, (name, count) in enumerate(facts[kind].items())
        }

    curves, heats = draws("curves"), draws("heats")
    if any(curve.shape != share.shape for own in curves.values() for curve in own) or times.shape[1:] != (2,):
        raise ValueError(f"the arrays of phrase {number} have inconsistent shapes")
    start, end = facts["span"]
    events = PhraseEvents(
        clip=facts["clip"], label=facts["label"], span=(start, end), source=facts["source"], times=times,
        bands=bands, zero_length=facts["zero_length"], clipped=facts["clipped"], sound_class=facts["class"],
        origin=facts.get("origin", ""), text=facts.get("text", ""),
    )  # fmt: skip
    return AlignedPhrase(
        events=events, sample=facts["sample"], seconds=facts["seconds"], column_seconds=facts["column_seconds"],
        share=share, curves=curves, energy=energy, mask=mask, seeds=facts["seeds"], heats=heats,
    )  # fmt: skip
