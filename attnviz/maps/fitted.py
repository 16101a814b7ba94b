"""`FittedReadout`: fitted weights of layers, heads and timesteps, with provenance and a file format."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.io.json_files import as_json, parse_json, read_json
from attnviz.io.storage import whole_or_nothing
from attnviz.maps.schema import provenance_text

FORMAT = "attnviz readout"
VERSION = 1

_SUM_TOLERANCE = 1e-9

Range = tuple[float, float]


@public
@dataclass(frozen=True)
class ReadoutPart:
    """One weighted part of a readout: a layer, optionally restricted to one head and to a range of timesteps.

    Parameters
    ----------
    layer : str
        Full name of the layer.
    weight : float
        Weight in (0, 1].
    head : int, optional
        Index of a head, from 0. By default, the mean over heads.
    timesteps : (float, float), optional
        Half-open range of timesteps of the training schedule: the first is included, the last is not. Denoiser
        calls in this range are averaged. By default, all calls are averaged.

    Raises
    ------
    MapsError
        If a value has the wrong type or is out of range.
    """

    layer: str
    weight: float
    head: int | None = None
    timesteps: Range | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer:
            raise MapsError(f"the layer of a part is {self.layer!r}; expected the name of a layer.")
        weight = _number("weight", self.weight)
        if not 0 < weight <= 1:
            raise MapsError(
                f"the weight of {self.layer} is {weight:g}; expected a value in (0, 1]. Omit parts of weight 0."
            )
        object.__setattr__(self, "weight", weight)
        if self.head is not None and (
            not isinstance(self.head, int) or isinstance(self.head, bool) or self.head < 0
        ):
            raise MapsError(f"the head of {self.layer} is {self.head!r}; expected an integer of at least 0.")
        if self.timesteps is not None:
            object.__setattr__(self, "timesteps", checked_range(self.timesteps))


@public
@dataclass(frozen=True)
class FittedReadout:
    """Weights of layers, heads and timesteps, fitted on scenes with known events.

    Created by `attnviz.alignment.fit_readout` or `load`, and passed as ``readout=`` to the methods that read maps.

    Parameters
    ----------
    parts : sequence of ReadoutPart
        Weighted parts without duplicates. The weights sum to 1.
    provenance : mapping, optional
        Origin of the readout, as JSON-serialisable values.

    Raises
    ------
    MapsError
        If there are no parts, a part is duplicated, the weights do not sum to 1, or `provenance` is not a mapping
        of JSON-serialisable values.

    Notes
    -----
    For each part, the tokens of the phrase are pooled and the map is divided by its mean magnitude over the
    columns that contain audio, on the grid of the layer. A map of zeros is left unchanged. Magnitudes are used
    because a negative word weight makes maps negative. The map is then resized bilinearly to the finest grid among
    the layers of the readout, and the weighted sum is computed. A value of 1 is therefore the mean of the phrase.
    The result does not depend on the total attention to the phrase, and it needs no data other than the maps.

    Examples
    --------
    >>> one = FittedReadout((ReadoutPart("up_blocks.0.attentions.0", 1.0, timesteps=(0, 200)),))
    >>> one.name
    'fitted c6c854a6'
    """

    parts: tuple[ReadoutPart, ...]
    provenance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def __post_init__(self) -> None:
        parts = tuple(self.parts)
        if not parts or not all(isinstance(part, ReadoutPart) for part in parts):
            raise MapsError(f"a readout needs one or more ReadoutPart objects; got {parts}.")
        whose = [(part.layer, part.head, part.timesteps) for part in parts]
        twice = [one for number, one in enumerate(whose) if one in whose[:number]]
        if twice:
            raise MapsError(f"{twice[0]} (layer, head, timesteps) is duplicated; add its weights.")
        total = math.fsum(part.weight for part in parts)
        if abs(total - 1) > _SUM_TOLERANCE:
            raise MapsError(f"the weights sum to {total:g}; they must sum to 1.")
        if not isinstance(self.provenance, Mapping):
            raise MapsError(f"provenance is a {type(self.provenance).__name__}; expected a mapping.")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "provenance", _plain(self.provenance))

    @property
    def name(self) -> str:
        """Name used in results: "fitted" and a hash of the weights, which does not depend on provenance."""
        text = json.dumps([asdict(part) for part in self.parts], sort_keys=True)
        return f"fitted {hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers with a weight, without duplicates."""
        return tuple(dict.fromkeys(part.layer for part in self.parts))

    @public
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the readout as JSON, atomically.

        Raises
        ------
        OutputError
            If `path` cannot be written, or exists and `overwrite` is False or it is not a file.
        """
        values = {"format": FORMAT, "version": VERSION, "parts": [asdict(part) for part in self.parts]}
        content = as_json({**values, "provenance": self.provenance}, path, error=MapsError, indent=1)
        with whole_or_nothing(path, overwrite=overwrite) as partial:
            partial.write_bytes(content)

    @classmethod
    @public
    def load(cls, path: str | os.PathLike[str]) -> FittedReadout:
        """Load a readout written by `save`, with bit-identical weights.

        Raises
        ------
        MapsError
            If the file does not exist or is not a readout: other JSON, a field that is missing, unknown or of the
            wrong type, or a newer version.
        """
        values = read_json(path, error=MapsError, hint="A file written by FittedReadout.save is expected.")
        try:
            return cls._from_values(values)
        except MapsError as error:
            raise MapsError(f"{path} is not a fitted readout: {error}") from error

    @classmethod
    def _from_values(cls, values: object) -> FittedReadout:
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise MapsError(f'"format": "{FORMAT}" is missing. Is it another kind of file?')
        if values.get("version") != VERSION:
            raise MapsError(f"its version is {values.get('version')!r}; this attnviz reads version {VERSION}.")
        _check_fields("a readout", values, ("format", "version", "parts", "provenance"))
        if not isinstance(values["parts"], list):
            raise MapsError(f"parts is a {type(values['parts']).__name__}; expected a list.")
        return cls(tuple(_part(number, part) for number, part in enumerate(values["parts"])), values["provenance"])


def checked_range(values: object) -> Range:
    """Return a valid range of timesteps, or raise MapsError."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise MapsError(f"a range of timesteps is {values!r}; expected (first, last).")
    first, last = (_number("a limit of a range", value) for value in values)
    if not 0 <= first < last:
        raise MapsError(
            f"the range of timesteps is {first:g} to {last:g}; expected 0 <= first < last, with last excluded. "
            "Timestep 0 of the training schedule is the least noisy. Was the range given in sampling order?"
        )
    return first, last


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of provenance after conversion to JSON and back."""
    return dict(parse_json(provenance_text(dict(provenance)), "provenance", error=MapsError))


def _part(number: int, values: object) -> ReadoutPart:
    if not isinstance(values, dict):
        raise MapsError(f"part {number} is a {type(values).__name__}; expected an object.")
    _check_fields(f"part {number}", values, tuple(each.name for each in fields(ReadoutPart)))
    return ReadoutPart(**values)


def _check_fields(what: str, values: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    if missing or unknown:
        raise MapsError(
            f"{what} has exactly the fields {', '.join(names)}; missing: {missing}, unknown: {unknown}."
        )


def _number(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MapsError(f"{name} is {value!r}; expected a finite number.")
    return number
