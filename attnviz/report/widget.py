"""The report as a notebook's widget: the same program and payload, below a cell."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps
from attnviz.report.page import program_text, style_text
from attnviz.report.payload import payload_of

_RENDER = """
export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "attnviz";
    el.append(root);
    attnvizReport(root, model.get("payload"));
  },
};
"""


def explore(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    audio: np.ndarray | None = None,
    events: pd.DataFrame | None = None,
    scores: pd.DataFrame | None = None,
) -> Any:
    """Show maps in a notebook, to be clicked, hovered and listened to: what ``attnviz report`` shows of a run.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample : int
        Which prompt, and which of its samples (images), both from 0.
    audio : numpy.ndarray, shape (samples,), optional
        The clip at 16 kHz, in [-1, 1], for example ``out.audios[0]``; without it nothing can be played.
    events : pandas.DataFrame, optional
        Event table of the clip, drawn as ground truth.
    scores : pandas.DataFrame, optional
        ``attnviz.align(maps, events).table``.

    Returns
    -------
    anywidget.AnyWidget
        As the last line of a cell it shows itself. Its trait ``payload`` is what `payload_of` gives.

    Raises
    ------
    AttnVizError
        anywidget is not installed.
    MapsError, AudioError
        As `attnviz.report.payload_of`.
    """
    widget = _widget_class()
    log_mel = None
    if maps.spectrogram is not None and 0 <= prompt_index < len(maps.prompts) and 0 <= sample < maps.images:
        log_mel = maps.spectrogram[prompt_index, sample].to_numpy()
    payload = payload_of(
        maps, prompt_index=prompt_index, sample=sample, audio=audio, log_mel=log_mel, events=events, scores=scores
    )
    return widget(payload=payload)


def module_text() -> str:
    """Return the widget's JavaScript module: the page's program, and how a notebook starts it."""
    return program_text() + _RENDER


@lru_cache(maxsize=1)
def _widget_class() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise AttnVizError(
            "maps.explore() is a widget and needs anywidget, which is not installed: "
            "pip install 'attnviz[notebook]'. Without it, attnviz report RUN writes the same as an HTML file."
        ) from error

    class Explorer(anywidget.AnyWidget):
        """The report of some maps."""

        _esm = module_text()
        _css = style_text()
        payload = traitlets.Dict().tag(sync=True)

    return Explorer
