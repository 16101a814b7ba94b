"""Clips with a caption and known events: composed scenes, or real clips of an annotated data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from harness.material import recordings

from alignment_parts.settings import Settings
from attnviz.events import match_clips
from attnviz.scenes import CLASSES, PHRASES, Scene, scenes


@dataclass(frozen=True, eq=False)
class Item:
    """A clip with its audio, caption, events and noise seed.

    ``other_caption`` names sounds that are not in the clip; for a real clip, it is the next caption, or empty.
    """

    name: str
    audio: np.ndarray | Path
    caption: str
    events: pd.DataFrame
    seed: int
    other_caption: str = ""
    scene: Scene | None = None

    @property
    def normalize(self) -> bool:
        """Whether it is scaled to a peak of 0.95, as in Auffusion; scenes keep the level of training."""
        return self.scene is None

    @cached_property
    def masks(self) -> xr.DataArray | None:
        """Share of each source in each cell, if known."""
        return None if self.scene is None else self.scene.masks()


def scene_item(esc10: Path, fold: int, settings: Settings) -> Callable[[int], Item]:
    """Return a function that composes a scene of a fold; they are those of the study of the bundled model."""
    found = recordings(esc10, fold)

    def composed(number: int) -> Item:
        scene = next(scenes(found, 1, (settings.seed, fold), start=number))
        seed = settings.seed_of(fold, number)
        other = _absent({sound.sound for sound in scene.sounds}, seed)
        return Item(f"{number:04d}", scene.mixture, scene.caption, scene.events, seed, other, scene)

    return composed


def scene_items(esc10: Path, fold: int, count: int, settings: Settings) -> Iterator[Item]:
    """Compose the first scenes of a fold."""
    return map(scene_item(esc10, fold, settings), range(count))


def _absent(present: set[str], seed: int) -> str:
    """Return a caption of two absent sounds."""
    rng = np.random.default_rng(seed)
    two = rng.permutation([name for name in CLASSES if name not in present])[:2]
    return " and ".join(PHRASES[name].clauses[0] for name in two)


def clip_items(events: pd.DataFrame, audio: Path, settings: Settings) -> list[Item]:
    """Join an event table with a folder of audio; return one clip per caption.

    Raises
    ------
    SystemExit
        The table holds no captions.
    EventsError
        As `attnviz.events.match_clips`.
    """
    if "caption" not in events.columns:
        raise SystemExit("The events have no captions, which the model needs; use for example AudioGrounding.")
    items = []
    for clip, path in match_clips(events, audio).files.items():
        own = events[events["clip"] == clip]
        for caption in dict.fromkeys(own["caption"]):
            rows = own[own["caption"] == caption].reset_index(drop=True)
            number = len(items)
            items.append(Item(f"{number:05d}", path, caption, rows, settings.seed_of(0, number)))
    captions = [item.caption for item in items]
    return [
        replace(item, other_caption=after) if after != item.caption else item
        for item, after in zip(items, captions[1:] + captions[:1], strict=True)
    ]


def class_of(label: str) -> str:
    """Return the ESC-10 class that a phrase of a composed caption names, or an empty string."""
    lower = label.lower()
    return next((name for name in CLASSES if lower in (*PHRASES[name].clauses, *PHRASES[name].nouns)), "")
