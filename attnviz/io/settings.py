"""Create dataclasses from TOML tables with strict checks of names, types and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from attnviz.errors import AttnVizError

Settings = TypeVar("Settings")


def read_settings(
    kind: type[Settings], values: Mapping[str, Any], where: str, *, error: type[AttnVizError] = AttnVizError
) -> Settings:
    """Create a dataclass from a mapping, with strict checks.

    Parameters
    ----------
    kind : type
        Dataclass whose fields are numbers, strings, choices, tuples of numbers, mappings or dataclasses, or None.
    values : mapping
        Values of the fields.
    where : str
        Prefix of keys in messages, such as ``"objective."``.
    error : type
        The `AttnVizError` to raise.

    Raises
    ------
    AttnVizError
        For an unknown or missing key, a value of another type, NaN, or an infinite or too large number.
    """
    if not isinstance(values, Mapping):
        raise error(f"{where.rstrip('.') or 'the configuration'} is {values!r}; it must be a table.")
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(values, known, where, error=error)
    missing = [
        where + name
        for name, item in known.items()
        if name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise error(f"missing: {', '.join(missing)}.")
    return kind(**{name: _value(where + name, hints[name], value, error) for name, value in values.items()})


def refuse_unknown(
    names: Iterable[str], known: Iterable[str], where: str, *, error: type[AttnVizError] = AttnVizError
) -> None:
    """Raise an error for an unknown name; the message suggests the closest known name."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Is {where}{near[0]} meant?" if near else ""
            raise error(f"{where}{name} is not a setting.{hint} Settings: {', '.join(known)}.")


def within(
    name: str, value: float, lowest: float, highest: float, *, error: type[AttnVizError] = AttnVizError
) -> None:
    """Raise an error if a value is not between `lowest` and `highest`, inclusive."""
    if not lowest <= value <= highest:
        raise error(f"{name} is {value}; it must be between {lowest} and {highest}.")


def above(name: str, value: float, limit: float, *, error: type[AttnVizError] = AttnVizError) -> None:
    """Raise an error if a value is not above `limit`."""
    if value <= limit:
        raise error(f"{name} is {value}; it must be above {limit}.")


def plain(value: Any) -> Any:
    """Return nested mappings and sequences as dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _value(name: str, hint: Any, value: Any, error: type[AttnVizError]) -> Any:
    """Return `value` converted to the type of its field, or raise an error."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:  # an optional field; TOML has no null
        hint = next(one for one in arguments if one is not type(None))
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_settings(hint, value, f"{name}.", error=error)
    if origin is Literal:
        if value not in arguments:
            raise error(f"{name} is {value!r}; it must be one of {', '.join(map(repr, arguments))}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise error(f"{name} is {value!r}; it must be a list.")
        return tuple(_value(f"{name}[{i}]", arguments[0], item, error) for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        _check_plain(name, value, error)
        value = float(value)
    kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint in kinds:
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise error(f"{name} is {value!r}; it must be {kinds[hint]}.")
        _check_plain(name, value, error)
        return value
    if not isinstance(value, Mapping):
        raise error(f"{name} is {value!r}; it must be a table, [{name}].")
    _check_plain(name, value, error)
    return dict(value)


def _check_plain(name: str, value: Any, error: type[AttnVizError]) -> None:
    """Raise an error for nested values that JSON cannot represent, or that are NaN."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(f"{name}.{key}", item, error)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(f"{name}[{i}]", item, error)
    elif isinstance(value, float) and not math.isfinite(value):
        raise error(f"{name} is {value}; it must be finite.")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise error(f"{name} is a whole number of more than 64 bits.")
    elif not isinstance(value, (bool, int, float, str)):
        raise error(f"{name} is {value!r}; it must be a number, string, boolean, list or table.")
