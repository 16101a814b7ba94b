"""Words for numbers and objects in messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

_MOST_SHOWN = 8  # entries of a mapping
_LONGEST = 120  # characters of a value


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 caption", "2 captions".

    Parameters
    ----------
    number : int
    noun : str
        In the singular; may be several words, of which the last changes.
    plural : str
        By default, `noun` with "s".

    Examples
    --------
    >>> counted(1, "class", "classes"), counted(2, "source recording")
    ('1 class', '2 source recordings')
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def short_repr(self: Any) -> str:
    """Return the ``repr`` of a dataclass with arrays and tables by their shape; used as its ``__repr__``.

    Examples
    --------
    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Clip:
    ...     samples: Any
    ...     name: str
    ...     __repr__ = short_repr
    >>> Clip(np.zeros(16_000), "a.wav")
    Clip(samples=<ndarray of shape (16000,)>, name='a.wav')
    """
    shown = ", ".join(f"{one.name}={_short(getattr(self, one.name))}" for one in fields(self) if one.repr)
    return f"{type(self).__name__}({shown})"


def _short(value: Any) -> str:
    if hasattr(value, "shape") and value.shape != ():
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    if isinstance(value, list | tuple) and any(hasattr(one, "shape") or is_dataclass(one) for one in value):
        more = ", ..." if len(value) > 1 else ""
        return f"<{type(value).__name__} of {len(value)}: {_short(value[0])}{more}>"
    if isinstance(value, Mapping) and len(value) > _MOST_SHOWN:
        return f"<{type(value).__name__} of {len(value)}>"
    text = repr(value)
    return text if len(text) <= _LONGEST and "\n" not in text else f"<{type(value).__name__}>"
