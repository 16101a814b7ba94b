"""`align`: score the maps of one clip against its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr

from attnviz.alignment.methods import BUILT_IN
from attnviz.alignment.phrases import phrase_events
from attnviz.alignment.reading import How, audio_seconds, check_masks, read_phrase
from attnviz.alignment.result import Alignment
from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.events import Heard
from attnviz.maps import AttentionMaps, Readout
from attnviz.maps.settling import readout_name, settled


@public
def align(
    maps: AttentionMaps,
    events: pd.DataFrame | Heard,
    *,
    controls: Mapping[str, AttentionMaps | Sequence[AttentionMaps]] | None = None,
    masks: xr.DataArray | None = None,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    pool: str = "mean",
    seed: int = 0,
) -> Alignment:
    """Score when the words of a prompt were attended to against when their sounds occur.

    Every phrase named by the events is scored, together with the controls. The columns are those of the readout
    (the grid of its finest layer) within the audio. A column is active if events cover at least half of it; the
    correlations use the covered fraction itself. Several events of one phrase form one activity.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of one clip.
    events : pandas.DataFrame or Hearing
        Event table of that clip (`attnviz.events`), or the result of `attnviz.listen`. In the latter case, every
        class that the prompt names is scored, and other sounds are omitted with a warning. A phrase is located in
        the prompt by ``span`` or otherwise by its ``label``, which must occur exactly once, as a phrase or as the
        name of a class (``"Dog bark"`` in "a dog barks", see `attnviz.text.sounds.find_label`). If a column
        ``caption`` gives the captions of the clip, only rows with the prompt as caption are used. The column
        ``source`` gives the source recording, which is the unit of the bootstrap; by default, this is the clip.
        Events of zero length are not scored; offsets up to 50 ms after the audio are cut; a label without times is
        a silent phrase.
    controls : mapping of str to AttentionMaps or sequence of them, optional
        Further maps of the same clip by name, for example of another caption or of randomized weights (use at
        least ten seeds). Each map of a sequence is a draw, and the score of a phrase is the mean over draws. For
        maps of a caption without the phrase, every word is a draw.
    masks : xarray.DataArray, dims (source, freq, time), optional
        Fraction of the energy of each cell that belongs to each label, as returned by
        `attnviz.scenes.Scene.masks`. A cell belongs to a sound if the fraction is at least one half. By default,
        the mask of a phrase is defined by the ``low`` and ``high`` of its events, if they have them.
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    readout : str or FittedReadout
        See `AttentionMaps.heatmap`. Its name is in `Alignment.readout`.
    pool : str
        See `AttentionMaps.heatmap`.
    seed : int
        Seed of all random draws.

    Returns
    -------
    Alignment
        ``.table`` (one row per phrase and method), ``.pooled``, ``.summary()``. Pool the results of several clips
        with ``Alignment.concat(results)``.

    Raises
    ------
    EventsError
        If `events` is not an event table, has several clips or only other captions, or ends more than 50 ms after
        the audio.
    PromptError
        If a phrase is not in the prompt, or occurs more than once and has no span.
    MapsError
        If the prompt, sample, readout or pool is unknown; if a control has a reserved name, no maps or another
        grid; or if the masks are invalid.

    Notes
    -----
    No model is loaded. The scores of phrases that are silent, sound over the whole clip, or are shorter than half
    a column are NaN. These phrases are counted and listed in `Alignment.undefined`.

    Examples
    --------
    ``attnviz.align(maps, attnviz.listen(out.audios[0])).summary()``, or with controls
    ``attnviz.align(maps, events, controls={"random weights": randomized})``.
    """
    maps.occurrences(prompt_index)  # raises if the prompt does not exist
    if masks is not None:
        check_masks(masks)
    others = {name: _sequence(name, given) for name, given in (controls or {}).items()}
    chosen = settled(readout, maps.provenance)  # the same for the maps and their controls
    how = How(prompt_index, sample, chosen, pool)
    found = phrase_events(events, maps.prompts[prompt_index], audio_seconds(maps.grid))
    return Alignment(
        tuple(read_phrase(maps, one, how, others, masks) for one in found), readout_name(chosen), seed
    )


def _sequence(name: str, given: AttentionMaps | Sequence[AttentionMaps]) -> list[AttentionMaps]:
    if name in BUILT_IN or not name:
        raise MapsError(f"A control cannot be named {name!r}; the names {', '.join(BUILT_IN)} are reserved.")
    others = [given] if isinstance(given, AttentionMaps) else list(given)
    if not others or not all(isinstance(one, AttentionMaps) for one in others):
        kinds = sorted({type(one).__name__ for one in others}) or "nothing"
        raise MapsError(f"The control {name!r} contains {kinds}; give AttentionMaps or a sequence of them.")
    return others
