"""`align`: one clip's maps scored against its events."""

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
    """Score where a prompt's words were attended to against when their sounds are there.

    Every phrase that the events name is scored, each time beside the controls. Columns are the readout's own (the
    grid of its finest layer), those beyond the audio left out; a column is active where events cover at least half
    of it. The correlations use the covered shares themselves. Several events of one phrase are one activity.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of one clip.
    events : pandas.DataFrame or Hearing
        Event table of that clip (`attnviz.events`), or what `attnviz.listen` heard in it: then every class that
        the prompt names is scored, and what was heard beyond them is left out with a warning. A phrase is found in
        the prompt by ``span``; where that is missing by its ``label``, which must stand there exactly once, as a
        phrase or as the name of a class (``"Dog bark"`` in "a dog barks", see `attnviz.text.sounds.find_label`).
        Where a column ``caption`` names the clip's captions, the rows of the prompt are taken: the others are for
        other maps. The column ``source`` names the source recording, the unit of the bootstrap; without it that is
        the clip. Events of no length are kept and not scored; ends up to 50 ms past the audio are cut; a label
        without times is a phrase that is silent.
    controls : mapping of str to AttentionMaps or sequence of them, optional
        Maps of the same clip made by other means, by name: of another caption, or of randomized weights (at least
        ten seeds: one alone says little). Each map of a sequence is a draw, and a phrase's score is their mean.
        Maps of a caption that lacks the phrase are read at every word, each a draw.
    masks : xarray.DataArray, dims (source, freq, time), optional
        Share of each cell's energy that belongs to each label, as `attnviz.sounds.Scene.masks` gives it; a cell
        belongs to a sound from a share of one half on. Without it the mask of a phrase is known where its events
        have ``low`` and ``high``.
    prompt_index, sample : int
        Which prompt, and which of its samples (images), both from 0.
    readout : str or FittedReadout
        As for `AttentionMaps.heatmap`; `Alignment.readout` is its name.
    pool : str
        As for `AttentionMaps.heatmap`.
    seed : int
        Of everything drawn at random.

    Returns
    -------
    Alignment
        ``.table`` (a row for each phrase and method), ``.pooled``, ``.summary()``. Results of many clips:
        ``Alignment.concat(results)``.

    Raises
    ------
    EventsError
        The events are no event table, are of several clips, of other captions alone, or end more than 50 ms after
        the audio.
    PromptError
        A phrase is not in the prompt, or stands there more than once and has no span.
    MapsError
        The prompt, sample, readout or pool is unknown; a control has a reserved name, no maps, or another grid;
        the masks are no masks.

    Notes
    -----
    No model runs here. Phrases that are silent, sound over the whole clip, or are shorter than half a column are
    undefined: NaN in every score, counted and listed (`Alignment.undefined`).

    Examples
    --------
    ``attnviz.align(maps, attnviz.listen(out.audios[0])).summary()``, or with controls
    ``attnviz.align(maps, events, controls={"random weights": randomized})``.
    """
    maps.occurrences(prompt_index)  # refuses a prompt that is not there
    if masks is not None:
        check_masks(masks)
    others = {name: _sequence(name, given) for name, given in (controls or {}).items()}
    chosen = settled(readout, maps.provenance)  # one for the maps and their controls
    how = How(prompt_index, sample, chosen, pool)
    found = phrase_events(events, maps.prompts[prompt_index], audio_seconds(maps.grid))
    return Alignment(
        tuple(read_phrase(maps, one, how, others, masks) for one in found), readout_name(chosen), seed
    )


def _sequence(name: str, given: AttentionMaps | Sequence[AttentionMaps]) -> list[AttentionMaps]:
    if name in BUILT_IN or not name:
        raise MapsError(f"A control cannot be called {name!r}; the names {', '.join(BUILT_IN)} are taken.")
    others = [given] if isinstance(given, AttentionMaps) else list(given)
    if not others or not all(isinstance(one, AttentionMaps) for one in others):
        kinds = sorted({type(one).__name__ for one in others}) or "nothing"
        raise MapsError(f"The control {name!r} holds {kinds}; AttentionMaps, or a sequence of them, are needed.")
    return others
