"""Errors that name the argument: what a public function says of an object of the wrong kind."""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from beartype import BeartypeConf, FrozenDict
from beartype.door import is_bearable

from attnviz.errors import ArgumentError, AttnVizError

_Public = TypeVar("_Public", bound=Callable[..., Any])  # a class is one, too

# NumPy's numbers are numbers, and an int is a float, as type checkers have it.
_SETTINGS = BeartypeConf(
    hint_overrides=FrozenDict({int: int | np.integer, float: float | int | np.floating | np.integer})
)
# What an object of another kind ends in, deep inside a function that was given it.
_SYMPTOMS = (
    ArithmeticError, AttributeError, BufferError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_LONGEST_SHOWN = 60


def public(function: _Public) -> _Public:
    """Name the argument that is of another kind than a public function takes.

    Arguments are looked at only once the function has failed outside attnviz's errors. If one does not fit its
    annotation, or is not finite, an `ArgumentError` names it, with the original error as its cause. The checks and
    words of a function come first, and a call that works costs nothing.

    Parameters
    ----------
    function : callable
        Public function, method of a public class, or a public class, whose constructor is meant. Its annotations
        resolve at run time.

    Returns
    -------
    callable
        The same function or class, with these errors.
    """
    if inspect.isclass(function):
        function.__init__ = public(function.__init__)  # type: ignore[method-assign]
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except _SYMPTOMS as error:
            unfit = _unfit(function, signature, args, kwargs)
            if unfit is None:
                raise
            raise ArgumentError(unfit) from error

    return typing.cast(_Public, door)


def whole_number(
    name: str, value: Any, *, most: int, least: int = 1, error: type[AttnVizError] = ArgumentError
) -> int:
    """Return a whole number within limits as an int.

    A number that sets how much is computed or stored has an upper limit, so that a slip ends in an error, not in a
    hang.

    Raises
    ------
    AttnVizError
        If the value is not a whole number from `least` to `most`.
    """
    whole = hasattr(value, "__index__") and not _is_flag(value)
    if not whole or not least <= int(value) <= most:
        raise error(f"{name} is {_shown(value)}; a whole number from {least} to {most} is needed.")
    return int(value)


def _unfit(
    function: Callable[..., Any], signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """Return what is wrong with the first argument that does not fit its annotation."""
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return None  # a missing or an unknown argument, which Python's own error names
    hints = typing.get_type_hints(function)
    for name, value in given.items():
        if name not in hints:
            continue
        kind = signature.parameters[name].kind
        values = list(value.values()) if kind is inspect.Parameter.VAR_KEYWORD else [value]
        if kind is inspect.Parameter.VAR_POSITIONAL:
            values = list(value)
        for one in values:
            if not _fits(one, hints[name]):
                return f"{_name(function)}: {name} is {_shown(one)}; {_described(hints[name])} is needed."
            if isinstance(one, float | np.floating) and not math.isfinite(one):
                return f"{_name(function)}: {name} is {one}; a finite number is needed."
            if name == "seed" and isinstance(one, int | np.integer) and one < 0:
                return f"{_name(function)}: seed is {one}; a whole number from 0 is needed."
    return None


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, str | bytes) and not _allows_text(hint):  # which is a sequence, too
        return False
    return is_bearable(value, hint, conf=_SETTINGS) and (not _is_flag(value) or _allows_flags(hint))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


@functools.cache
def _allows_flags(hint: Any) -> bool:
    """Return whether a hint names bool, object or Any, alone or in a union."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return any(_allows_flags(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return any(isinstance(one, bool) for one in typing.get_args(hint))
    return hint in {bool, object, Any} or isinstance(hint, typing.TypeVar)


@functools.cache
def _allows_text(hint: Any) -> bool:
    """Return whether a hint names str, bytes, object or Any, alone or in a union."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return any(_allows_text(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return any(isinstance(one, str | bytes) for one in typing.get_args(hint))
    return hint in {str, bytes, object, Any} or isinstance(hint, typing.TypeVar)


def _name(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__init__")


def _shown(value: Any) -> str:
    """Return a value and its type as a reader would write them, cut where it is long."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
        if len(text) > _LONGEST_SHOWN:
            text = text[:_LONGEST_SHOWN] + "..."
        return text if value is None else f"{text} ({type(value).__name__})"
    article = "an" if type(value).__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def _described(hint: Any) -> str:
    """Return an annotation in words: ``str | None`` is "a str or None"."""
    origin, within = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_described(one) for one in within)
    if origin is typing.Literal:
        return " or ".join(str(one) for one in within)
    if hint is None or hint is type(None):
        return "None"
    plain = origin or hint
    words = {os.PathLike: "a path", float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    if plain in words:
        return words[plain]
    name = getattr(plain, "__name__", str(plain))
    inner = [one for one in within if one is not Ellipsis and isinstance(one, type)]
    of = f" of {' and '.join(one.__name__ for one in inner)}" if inner and origin is not None else ""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}{of}"
