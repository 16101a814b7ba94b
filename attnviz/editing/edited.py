"""What an edit returns: source and edit, with their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnviz.editing.injection import SOURCE, TARGET
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps
from attnviz.wording import short_repr


@dataclass(frozen=True)
class EditedAudio:
    """A generation and its edit.

    Attributes
    ----------
    output : AuffusionOutput or object
        Output of the pipeline, or of ``generate``: first the source and then the edit.
    maps : AttentionMaps
        Maps of both: prompt 0 is the source, prompt 1 the target. The recorded attention includes injection and
        weights, so it may be negative.
    edit : PromptEdit
        The edit, with the effective settings.
    mask : numpy.ndarray or None
        Shape (rows, columns), or (columns,) in models without frequency; bool: latent cells edited by the local
        blend in the last step, with the highest frequency in row 0. None without a blend.
    audios : sequence of numpy.ndarray or None
        Waveforms of source and edit, shape (samples,) or (channels, samples); None if the call made latents alone.
    """

    output: Any
    maps: AttentionMaps
    edit: PromptEdit
    mask: np.ndarray | None = None
    audios: Sequence[np.ndarray] | None = None

    __repr__ = short_repr

    @property
    def source_audio(self) -> np.ndarray:
        """Waveform of the source, shape (samples,) or (channels, samples)."""
        return self._waveforms[SOURCE]

    @property
    def audio(self) -> np.ndarray:
        """Edited waveform, shape (samples,) or (channels, samples)."""
        return self._waveforms[TARGET]

    @property
    def _waveforms(self) -> Sequence[np.ndarray]:
        if self.audios is None:
            raise AttnVizError(
                "There is no audio: the edit was made with output_type='latent', or the model returns latents "
                "alone, as Tango and TangoFlux do in their published code. Decode `output` as its pipeline does."
            )
        return self.audios
