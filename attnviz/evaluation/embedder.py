"""Embedders: what turns a waveform into an embedding, and what is known of it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from attnviz.audio import load_audio
from attnviz.capture.identity import tensor_digest
from attnviz.errors import EvaluationError
from attnviz.io.json_files import as_json
from attnviz.wording import short_repr

Embed = Callable[[np.ndarray, int], Any]
"""From a waveform ``(samples,)`` and its sampling rate in Hz to an array, or to a dictionary of them."""

OUTPUTS = ("embedding", "logits")


@dataclass(frozen=True, eq=False)
class Embedder:
    """A function from audio to embeddings, with its name and sampling rate.

    Parameters
    ----------
    name : str
        Name for tables: the Frechet distance of an embedder ``listener`` is ``FD-listener``.
    function : callable
        From a float32 waveform ``(samples,)`` and its sampling rate in Hz to the embedding, an array
        ``(columns,)``; or to a dictionary with ``embedding``, ``logits`` ``(classes,)``, or both.
    sampling_rate : int
        Sampling rate in Hz of the waveforms that the function gets.
    text : callable, optional
        From a list of captions to their embeddings ``(captions, columns)`` in the same space, for the CLAP score.
    classes : tuple of str
        Names of the logits' classes, if known.
    digest : str, optional
        Text that changes whenever the function would return other values. Only embeddings of an embedder with a
        digest are cached.
    note : str
        What a reader of its values must know, for example that they do not compare with those of papers.

    Examples
    --------
    >>> rms = Embedder("rms", lambda audio, rate: np.array([np.sqrt(np.mean(audio**2))]))
    >>> rms(0.5 * np.ones(1600, np.float32), 16_000)["embedding"]
    array([0.5], dtype=float32)
    """

    name: str
    function: Embed
    sampling_rate: int = 16_000
    text: Callable[[Sequence[str]], np.ndarray] | None = None
    classes: tuple[str, ...] = ()
    digest: str | None = None
    note: str = ""

    __repr__ = short_repr

    def __call__(self, audio: np.ndarray, sampling_rate: int) -> dict[str, np.ndarray]:
        """Embed a clip.

        Parameters
        ----------
        audio : numpy.ndarray
            Waveform ``(samples,)``; resampled if it has another rate than the embedder.
        sampling_rate : int
            In Hz.

        Returns
        -------
        dict of str to numpy.ndarray
            ``embedding`` and, from a classifier, ``logits``.

        Raises
        ------
        EvaluationError
            If the function returns something else, or values that are not finite.
        """
        waveform = load_audio(audio, self.sampling_rate, source_rate=sampling_rate)
        self._check_arguments()
        found = self.function(waveform, self.sampling_rate)
        named = dict(found) if isinstance(found, Mapping) else {"embedding": found}
        if not named or set(named) - set(OUTPUTS):
            raise EvaluationError(
                f"the embedder {self.name} returned the outputs {sorted(map(str, named))}; expected 'embedding', "
                "'logits' or both."
            )
        return {name: self._checked(name, values) for name, values in named.items()}

    def _check_arguments(self) -> None:
        try:
            inspect.signature(self.function).bind(None, 0)
        except ValueError:  # a function of an extension, which states no arguments
            return
        except TypeError as error:
            raise EvaluationError(
                f"the embedder {self.name} is called with (audio, sampling_rate), which it does not take: {error}."
            ) from error

    def _checked(self, name: str, values: Any) -> np.ndarray:
        try:
            plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        except (TypeError, ValueError):  # lists of different lengths
            plain = np.asarray(None)
        if plain.ndim != 1 or not plain.size or plain.dtype.kind not in "fiu":
            raise EvaluationError(
                f"the embedder {self.name} returned {name} of shape {plain.shape} and type {plain.dtype} for one "
                "clip; expected an array of numbers of shape (columns,). Average over time or batch first."
            )
        if not np.isfinite(plain).all():
            raise EvaluationError(f"the embedder {self.name} returned NaN or infinite values as {name}.")
        return plain


def checked_embedder(given: Embedder | Embed) -> Embedder:
    """Return an embedder, or wrap a callable, named as it is, that gets audio at 16 kHz.

    Raises
    ------
    EvaluationError
        If it is not callable.
    """
    if isinstance(given, Embedder):
        return given
    if not callable(given):
        raise EvaluationError(
            f"an embedder is a {type(given).__name__}; expected an Embedder, a name for load_embedder, or a "
            "callable from (audio, sampling_rate) to an embedding."
        )
    return Embedder(getattr(given, "__name__", type(given).__name__).strip("<>"), given)


def module_digest(module: nn.Module, *settings: object) -> str:
    """Return a digest of a module's weights and of settings, given as text, numbers, lists or dictionaries."""
    weights = {name: tensor_digest(tensor) for name, tensor in sorted(module.state_dict().items())}
    content = as_json([weights, *settings], "an embedder's settings", default=str)
    return hashlib.sha256(content).hexdigest()[:32]
