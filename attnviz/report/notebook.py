"""Show the report in a frame below a notebook cell."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.audio import load_audio
from attnviz.io.storage import whole_or_nothing
from attnviz.maps import AttentionMaps
from attnviz.report.items import Span
from attnviz.report.page import is_report, page_of
from attnviz.report.payload import payload_of

_HEIGHT = 1000
"""Height of the frame in pixels until the page reports its own height."""


class Explorer:
    """A report that Jupyter displays as the value of a cell and includes in HTML exports.

    Attributes
    ----------
    payload : dict
        Result of `payload_of`.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self.payload = payload

    @public
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the page as one HTML file.

        Raises
        ------
        OutputError
            If `path` cannot be written, or exists and `overwrite` is False or it is not a report.
        """
        target = Path(path)
        with whole_or_nothing(target, overwrite=overwrite, replaceable=is_report) as partial:
            partial.write_bytes(page_of(self.payload))
        return target

    def _repr_html_(self) -> str:
        page = page_of(self.payload, framed=True).decode("utf-8")
        return (
            f'<iframe srcdoc="{html.escape(page)}" title="attnviz report" loading="lazy" '
            f'style="display: block; width: 100%; height: {_HEIGHT}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Explorer({self.payload['prompt']!r}): shown by Jupyter; .save(path) writes it as an HTML file"


@public
def explore(
    maps: AttentionMaps,
    *,
    audio: str | os.PathLike[str] | np.ndarray | None = None,
    sampling_rate: int | None = None,
    events: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
    phrases: Sequence[str | Span] = (),
    prompt_index: int = 0,
    sample: int = 0,
) -> Explorer:
    """Show maps and a player in a notebook, as the interactive page that ``attnviz report`` writes.

    Parameters
    ----------
    maps : AttentionMaps
        Maps to show.
    audio : str, path-like, or numpy.ndarray of shape (samples,), optional
        Audio of the clip: a file, or samples in [-1, 1] such as ``out.audios[0]``; with `sampling_rate`, of the
        shape ``(samples,)`` or ``(samples, channels)``. By default, the page has no player.
    sampling_rate : int, optional
        Sampling rate in Hz of samples; default: 16 000. A file states its own.
    events : pandas.DataFrame, optional
        Event table of the clip (`attnviz.read_events`, ``attnviz.listen(...).events``). The page says whether
        events were given or heard by the listener.
    scores : pandas.DataFrame, optional
        ``attnviz.align(maps, events).table``.
    phrases : sequence of str or (int, int)
        Phrases to list in addition to the words, the phrases named by events and those found in the prompt. The
        page opens on the first one.
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).

    Returns
    -------
    Explorer
        Object that a notebook displays if it is the last expression of a cell. ``.save("maps.html")`` writes it as
        one HTML file.

    Raises
    ------
    MapsError, PromptError
        If the prompt, sample or phrase does not exist, no word can be shown, or the page would exceed 10 MB.
    AudioError
        If the audio cannot be read, or is not one channel of finite samples.

    Notes
    -----
    Of maps without a frequency axis, the page shows a strip over time, above the spectrogram of `audio`.
    """
    log_mel = None
    if maps.spectrogram is not None and 0 <= prompt_index < len(maps.prompts) and 0 <= sample < maps.images:
        log_mel = maps.spectrogram[prompt_index, sample].to_numpy()
    loaded = isinstance(audio, str | os.PathLike) or (audio is not None and sampling_rate is not None)
    sound: Any = load_audio(audio, source_rate=sampling_rate) if audio is not None and loaded else audio
    return Explorer(
        payload_of(
            maps, prompt_index=prompt_index, sample=sample, audio=sound, log_mel=log_mel, events=events,
            scores=scores, phrases=phrases,
        )
    )  # fmt: skip
