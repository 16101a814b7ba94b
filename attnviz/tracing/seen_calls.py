"""Maps of the calls that a trace has seen: what `Trace` and `GenerationTrace` give their user."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from attnviz.capture import Changes
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps

Call = TypeVar("Call")


class SeenCalls(Changes, Generic[Call]):
    """A trace of calls, with the maps of each."""

    _recorder: Any
    """What records the attention; its ``layers`` are the modules observed."""
    _object: ClassVar[str]
    """What is called: "pipeline" or "model"."""
    _nothing: ClassVar[str]
    """Why there are no maps, and what to call, if no call was seen."""

    @abstractmethod
    def _seen(self) -> Sequence[Call]:
        """Return the calls that have maps, in order."""

    @abstractmethod
    def _maps_of(self, call: Call) -> AttentionMaps:
        """Return the maps of a call."""

    @property
    def coverage(self) -> tuple[int, int]:
        """Number of layers seen throughout every call, and of all that attend to the text; normally equal."""
        layers = len(self._recorder.layers)
        return (layers if self._seen() else 0), layers

    @property
    def runs(self) -> list[AttentionMaps]:
        """Maps of every call, in order; calls without a completed step, or a whole frame, are omitted."""
        return [self._maps_of(call) for call in self._seen()]

    @property
    def maps(self) -> AttentionMaps:
        """Maps of the call.

        Raises
        ------
        MapsError
            If there was no call, or more than one; use `runs` for several.
        """
        seen = self._seen()
        if not seen:
            raise MapsError(self._nothing)
        if len(seen) > 1:
            raise MapsError(
                f"The {self._object} was called {len(seen)} times in this block, so `maps` is ambiguous. "
                "trace.runs lists the maps of each call, in order."
            )
        return self._maps_of(seen[0])
