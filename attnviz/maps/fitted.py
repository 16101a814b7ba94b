"""`FittedReadout`: weights of layers, heads and timesteps, with where they come from, and its file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from attnviz.errors import MapsError
from attnviz.io.json_files import as_json, parse_json, read_json
from attnviz.io.storage import whole_or_nothing
from attnviz.maps.schema import provenance_text

FORMAT = "attnviz readout"
VERSION = 1

_SUM_TOLERANCE = 1e-9

Range = tuple[float, float]


@dataclass(frozen=True)
class ReadoutPart:
    """What one weight of a readout is of: a layer, or one head of it, or some of its timesteps.

    Parameters
    ----------
    layer : str
        Full name of the layer.
    weight : float
        Its share of the whole, in (0, 1].
    head : int, optional
        One head, from 0; None: the mean over heads.
    timesteps : (float, float), optional
        Timesteps of the training schedule, the first included and the last not: denoiser calls at these are
        averaged. None: all calls.

    Raises
    ------
    MapsError
        A value is of another kind or out of range.
    """

    layer: str
    weight: float
    head: int | None = None
    timesteps: Range | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str) or not self.layer:
            raise MapsError(f"a part's layer is {self.layer!r}; the name of a layer is needed.")
        weight = _number("weight", self.weight)
        if not 0 < weight <= 1:
            raise MapsError(f"the weight of {self.layer} is {weight:g}; it is in (0, 1]. Leave out what has none.")
        object.__setattr__(self, "weight", weight)
        if self.head is not None and (
            not isinstance(self.head, int) or isinstance(self.head, bool) or self.head < 0
        ):
            raise MapsError(f"the head of {self.layer} is {self.head!r}; it is a whole number from 0.")
        if self.timesteps is not None:
            object.__setattr__(self, "timesteps", checked_range(self.timesteps))


@dataclass(frozen=True)
class FittedReadout:
    """Weights of layers, heads and timesteps, fitted on scenes whose sounds are known.

    Made by `attnviz.alignment.fit_readout` or `load`; given as ``readout=`` wherever maps are read.

    Parameters
    ----------
    parts : sequence of ReadoutPart
        What is weighed, none twice; the weights sum to 1.
    provenance : mapping, optional
        Where it comes from, of values that JSON can hold.

    Raises
    ------
    MapsError
        There are no parts, one stands twice, the weights do not sum to 1, or provenance is no mapping of values
        that JSON can hold.

    Notes
    -----
    In each part the phrase's tokens are pooled, and the map is divided by its mean over the columns that hold
    audio, on the layer's own grid (a map that is 0 everywhere stays so; of a map with negative values, as a
    negative weight of a word makes it, the mean magnitude). Then it is resized bilinearly to the finest grid among
    the readout's layers, and the weighted sum is taken. So 1 is the phrase's own mean: how much a word is attended
    to in all has no part in it, and nothing but the maps themselves is needed.

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
            raise MapsError(f"a readout is made of ReadoutPart, one or more; given were {parts}.")
        whose = [(part.layer, part.head, part.timesteps) for part in parts]
        twice = [one for number, one in enumerate(whose) if one in whose[:number]]
        if twice:
            raise MapsError(f"{twice[0]} (layer, head, timesteps) stands twice; add its weights up.")
        total = math.fsum(part.weight for part in parts)
        if abs(total - 1) > _SUM_TOLERANCE:
            raise MapsError(f"the weights sum to {total:g}; they are shares, and sum to 1.")
        if not isinstance(self.provenance, Mapping):
            raise MapsError(f"provenance is a {type(self.provenance).__name__}; a mapping is needed.")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "provenance", _plain(self.provenance))

    @property
    def name(self) -> str:
        """What results call it: "fitted" and a fingerprint of its weights, not of where they come from."""
        text = json.dumps([asdict(part) for part in self.parts], sort_keys=True)
        return f"fitted {hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that have a weight, each once."""
        return tuple(dict.fromkeys(part.layer for part in self.parts))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write it as JSON, whole or not at all.

        Raises
        ------
        OutputError
            If `path` exists (and `overwrite` is off, or it is no file), or cannot be written to.
        """
        values = {"format": FORMAT, "version": VERSION, "parts": [asdict(part) for part in self.parts]}
        content = as_json({**values, "provenance": self.provenance}, path, error=MapsError, indent=1)
        with whole_or_nothing(path, overwrite=overwrite) as partial:
            partial.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedReadout:
        """Read what `save` wrote; every weight is the same to the last bit.

        Raises
        ------
        MapsError
            There is no such file, or it is no readout: other JSON, a field missing, unknown or of another kind,
            a newer version.
        """
        values = read_json(path, error=MapsError, hint="A fitted readout was to be read from it.")
        try:
            return cls._from_values(values)
        except MapsError as error:
            raise MapsError(f"{path} is no fitted readout: {error}") from error

    @classmethod
    def _from_values(cls, values: object) -> FittedReadout:
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise MapsError(f'"format": "{FORMAT}" is missing. Is it another file?')
        if values.get("version") != VERSION:
            raise MapsError(f"its version is {values.get('version')!r}; version {VERSION} is read here.")
        _check_fields("a readout", values, ("format", "version", "parts", "provenance"))
        if not isinstance(values["parts"], list):
            raise MapsError(f"parts is a {type(values['parts']).__name__}; a list is needed.")
        return cls(tuple(_part(number, part) for number, part in enumerate(values["parts"])), values["provenance"])


def checked_range(values: object) -> Range:
    """Return a range of timesteps, or raise MapsError."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise MapsError(f"a range of timesteps is {values!r}; (first, last) is needed.")
    first, last = (_number("a range's end", value) for value in values)
    if not 0 <= first < last:
        raise MapsError(
            f"timesteps from {first:g} to {last:g}; 0 <= first < last is needed, the last not included. They are "
            "of the training schedule, where 0 is hardly any noise; were they given in the order of sampling?"
        )
    return first, last


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Copy provenance as a file would give it back."""
    return dict(parse_json(provenance_text(dict(provenance)), "provenance", error=MapsError))


def _part(number: int, values: object) -> ReadoutPart:
    if not isinstance(values, dict):
        raise MapsError(f"part {number} is a {type(values).__name__}; an object is needed.")
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
        raise MapsError(f"{name} is {value!r}; a finite number is needed.")
    return number
