"""Create dataclasses from TOML tables with strict checks of names, types and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from attnviz.errors import TrainingError

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Create a dataclass from a mapping, with strict checks.

    Parameters
    ----------
    kind : type
        Dataclass whose fields are numbers, strings, choices, tuples of numbers, mappings or dataclasses.
    values : mapping
        Values of the fields.
    where : str
        Prefix of keys in messages, such as ``"objective."``.

    Raises
    ------
    TrainingError
        See :meth:`TrainingConfig.from_dict`.
    """
    if not isinstance(values, Mapping):
        raise TrainingError(f"{where.rstrip('.') or 'the configuration'} is {values!r}; it must be a table.")
    hints = typing.get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(values, known, where)
    missing = [
        where + name
        for name, item in known.items()
        if name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise TrainingError(f"missing: {', '.join(missing)}.")
    return kind(**{name: _value(where + name, hints[name], value) for name, value in values.items()})


def refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise TrainingError for an unknown name; the message suggests the closest known name."""
    known = list(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Is {where}{near[0]} meant?" if near else ""
            raise TrainingError(f"{where}{name} is not a setting.{hint} Settings: {', '.join(known)}.")


def within(name: str, value: float, lowest: float, highest: float) -> None:
    """Raise TrainingError if a value is not between `lowest` and `highest`, inclusive."""
    if not lowest <= value <= highest:
        raise TrainingError(f"{name} is {value}; it must be between {lowest} and {highest}.")


def above(name: str, value: float, limit: float) -> None:
    """Raise TrainingError if a value is not above `limit`."""
    if value <= limit:
        raise TrainingError(f"{name} is {value}; it must be above {limit}.")


def plain(value: Any) -> Any:
    """Return nested mappings and sequences as dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _value(name: str, hint: Any, value: Any) -> Any:
    """Return `value` converted to the type of its field, or raise TrainingError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_settings(hint, value, f"{name}.")
    if origin is Literal:
        if value not in arguments:
            raise TrainingError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, arguments))}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TrainingError(f"{name} is {value!r}; it must be a list.")
        return tuple(_value(f"{name}[{i}]", arguments[0], item) for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        _check_plain(name, value)
        value = float(value)
    kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint in kinds:
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise TrainingError(f"{name} is {value!r}; it must be {kinds[hint]}.")
        _check_plain(name, value)
        return value
    if not isinstance(value, Mapping):
        raise TrainingError(f"{name} is {value!r}; it must be a table, [{name}].")
    _check_plain(name, value)
    return dict(value)


def _check_plain(name: str, value: Any) -> None:
    """Raise TrainingError for nested values that JSON cannot represent, or that are NaN."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(f"{name}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(f"{name}[{i}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise TrainingError(f"{name} is {value}; it must be finite.")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise TrainingError(f"{name} is a whole number of more than 64 bits.")
    elif not isinstance(value, (bool, int, float, str)):
        raise TrainingError(f"{name} is {value!r}; it must be a number, string, boolean, list or table.")
