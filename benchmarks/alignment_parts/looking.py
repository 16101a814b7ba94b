"""Maps of clips and of generated audio, scored with every readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from harness import Model
from harness.material import Prompt, heard_events

import attnviz
from alignment_parts.material import Item
from alignment_parts.pieces import Piece, picture_of
from alignment_parts.settings import Settings
from attnviz.alignment import profile
from attnviz.attribution import cascade
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, FittedReadout, Readout
from attnviz.maps.layer import short_name

RANDOM = "random weights"
OTHER_CAPTION = "another caption"
BEST, FITTED = "best layer", "fitted"
KEEP = ("step", "head")


@dataclass(frozen=True)
class Chosen:
    """Fitted readout and layer chosen on other recordings, or None."""

    fitted: FittedReadout | None = None
    layer: str | None = None


def explained(pipe: Any, item: Item, way: str, settings: Settings, **more: Any) -> AttentionMaps:
    """Explain a clip with one method."""
    how = settings.of_way(way)
    if way != "inversion":
        how["seed"] = item.seed
    return attnviz.explain(pipe, item.audio, item.caption, normalize=item.normalize, keep=KEEP, **how, **more)


def explain_piece(pipe: Any, item: Item, way: str, settings: Settings, chosen: Chosen) -> Piece:
    """Explain a clip, and score it with every readout."""
    maps = explained(pipe, item, way, settings)
    readouts = {**named_readouts(maps, chosen), **{short_name(layer): layer for layer in maps.layers}}
    return _piece(maps, item.events, readouts, masks=item.masks)


def weights_piece(pipe: Any, item: Item, way: str, settings: Settings, chosen: Chosen) -> Piece:
    """Explain a clip with controls.

    The controls are the same U-Net with its blocks shuffled successively from the output, and with all blocks
    shuffled, seed by seed, and the original U-Net with a caption of other sounds.
    """
    maps = explained(pipe, item, way, settings)
    blocks = len(cascade(pipe.unet))
    controls = {
        cascaded(count, blocks): [explained(pipe, item, way, settings, randomize=count, randomize_seed=0)]
        for count in range(1, blocks)
    }
    controls[RANDOM] = [
        explained(pipe, item, way, settings, randomize=blocks, randomize_seed=seed)
        for seed in range(settings.weight_seeds)
    ]
    if item.other_caption:
        controls[OTHER_CAPTION] = [explained(pipe, replace(item, caption=item.other_caption), way, settings)]
    return _piece(maps, item.events, named_readouts(maps, chosen), controls=controls)


def cascaded(count: int, blocks: int) -> str:
    """Return the name of the control in which `count` blocks of a U-Net are shuffled, from its output."""
    return f"{count} of {blocks} blocks random"


def generation_piece(
    model: Model, prompt: Prompt, number: int, repeat: int, settings: Settings, chosen: Chosen
) -> Piece:
    """Generate a prompt with one seed; the ground truth is the result of the listener."""
    generator = torch.Generator().manual_seed(settings.seed_of(settings.fold, number, repeat))
    with attnviz.trace(model.pipe, keep=KEEP) as trace:
        out = model.pipe(
            prompt.text,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            guidance_interval=settings.guidance_interval,
            generator=generator,
            duration=10.24,
        )
    hearing = model.listen(out.audios[0])
    maps = trace.maps
    readouts = {**named_readouts(maps, chosen), **{short_name(layer): layer for layer in maps.layers}}
    piece = _piece(maps, heard_events(hearing, prompt, f"prompt {number}"), readouts)
    phrases = {name: tuple(replace(one, sample=repeat) for one in found) for name, found in piece.phrases.items()}
    return Piece(phrases, piece.profile.assign(image=repeat), piece.picture)


def named_readouts(maps: AttentionMaps, chosen: Chosen) -> dict[str, Readout]:
    """Return the compared readouts by their names in the tables."""
    readouts: dict[str, Readout] = {"mean": "mean"}
    if has_auffusion(maps):
        readouts["auffusion"] = "auffusion"
    if chosen.layer is not None:
        readouts[BEST] = chosen.layer
    if chosen.fitted is not None:
        readouts[FITTED] = chosen.fitted
    return readouts


def has_auffusion(maps: AttentionMaps) -> bool:
    """Return whether the authors' readout is defined; it needs attention on more than one grid."""
    first = maps.occurrences(0)[0]
    try:
        maps.heatmap(first.span, readout="auffusion")
    except MapsError:
        return False
    return True


def _piece(
    maps: AttentionMaps,
    events: pd.DataFrame,
    readouts: Mapping[str, Readout],
    *,
    controls: Mapping[str, Sequence[AttentionMaps]] | None = None,
    masks: Any = None,
) -> Piece:
    phrases = {
        name: attnviz.align(
            maps,
            events,
            readout=readout,
            controls=controls,
            masks=masks if name in ("mean", FITTED) else None,
        ).phrases
        for name, readout in readouts.items()
    }
    spectrogram = maps.spectrogram
    if spectrogram is None:
        raise MapsError("The maps have no spectrogram, so there is no energy control.")
    return Piece(phrases, profile(maps, events), picture_of(spectrogram[0, 0].to_numpy()))
