"""Compose random scenes of known sounds at known times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.errors import AudioError
from attnviz.scenes.audibility import FRAME_SECONDS, Intervals, frame_intervals, frame_levels
from attnviz.scenes.captions import Heard, write_caption
from attnviz.scenes.config import ComposerConfig
from attnviz.scenes.placing import coloured_noise, cut_sound, heard, place, starts_anywhere, starts_in_sequence
from attnviz.scenes.recordings import Recording
from attnviz.scenes.scene import Scene, SceneSound, add_up

_PEAK = 0.95  # mixtures with a higher peak are attenuated
_FILLED = 0.9  # sounds in a sequence are shortened to fill at most this share of the scene
_STEEPEST = 2.0  # exponent of brown noise


@public
def compose(
    recordings: Sequence[Recording],
    seed: int | Sequence[int],
    config: ComposerConfig | None = None,
    *,
    name: str | None = None,
) -> Scene:
    """Compose a scene.

    Parameters
    ----------
    recordings : sequence of Recording
        Available recordings, in any order. A class is drawn first, then one of its recordings.
    seed : int or sequence of int
        Non-negative seed. The same seed, recordings and settings give a bit-identical scene.
    config : ComposerConfig, optional
        Ranges of the random parameters and the definition of audibility.
    name : str, optional
        File name of the mixture. By default, ``scene-<seed>.wav``.

    Returns
    -------
    Scene
        The mixture, its stems, a caption and the events.

    Raises
    ------
    AudioError
        If there are no recordings, fewer classes than sounds in a scene, an invalid seed, or a recording that can
        no longer be read.

    Notes
    -----
    Each sound is an excerpt of a recording that contains its loudest frame, with inaudible ends removed. Sounds
    begin at the edge of a spectrogram column (10 ms). In a sequence, each sound ends before the next one begins.
    If the peak of the mixture exceeds 0.95, the whole mixture is attenuated, including the background.

    Scenes are reproducible with the same versions of NumPy and soxr only.
    """
    config = config or ComposerConfig()
    seeds = _seeds(seed)
    file_name = _file_name(name, seeds)
    rng = np.random.default_rng(seeds)
    chosen = _choose(recordings, config, rng)
    sequence = rng.random() < config.sequences
    seconds = rng.uniform(*config.lengths, size=len(chosen))
    if sequence:
        seconds *= min(1.0, _FILLED * config.seconds / seconds.sum())
    semitones = rng.uniform(*config.semitones, size=len(chosen))
    pieces = [
        cut_sound(
            recording,
            seconds=min(length, config.seconds),
            semitones=pitch,
            level=rng.uniform(*config.levels),
            where=rng.random(),
            config=config,
        )
        for recording, length, pitch in zip(chosen, seconds, semitones, strict=True)
    ]
    lengths = [piece.size // MEL.hop_length for piece in pieces]
    starts = (starts_in_sequence if sequence else starts_anywhere)(lengths, config.frames, rng)
    intervals = [_intervals(piece, start, config) for piece, start in zip(pieces, starts, strict=True)]
    noise = coloured_noise(
        config.frames * MEL.hop_length, rng.uniform(*config.background), rng.uniform(0.0, _STEEPEST), rng
    )
    by_onset = sorted(range(len(chosen)), key=lambda i: (intervals[i][0][0], chosen[i].class_id))
    stems = np.stack([*(place(pieces[i], starts[i], config.frames) for i in by_onset), noise])
    peak = float(np.abs(add_up(stems)).max())
    if peak > _PEAK:
        stems *= np.float32(_PEAK / peak)
    caption, spans = write_caption(
        [Heard(chosen[i].sound, intervals[i][0][0], intervals[i][-1][1]) for i in by_onset], rng
    )
    sounds = tuple(
        SceneSound(
            label=caption[slice(*spans[position])],
            span=spans[position],
            sound=chosen[i].sound,
            recording=chosen[i].name,
            source=chosen[i].freesound_id,
            fold=chosen[i].fold,
            start=round(starts[i] * FRAME_SECONDS, 6),
            seconds=round(lengths[i] * FRAME_SECONDS, 6),
            level=float(frame_levels(stems[position], weighted=False).max()),
            semitones=float(semitones[i]),
            intervals=intervals[i],
        )
        for position, i in enumerate(by_onset)
    )
    return Scene(file_name, add_up(stems), caption, sounds, seeds, config, stems)


@public
def scenes(
    recordings: Sequence[Recording],
    count: int | None,
    seed: int | Sequence[int],
    config: ComposerConfig | None = None,
    *,
    start: int = 0,
) -> Iterator[Scene]:
    """Generate scenes lazily.

    Parameters
    ----------
    recordings : sequence of Recording
        Available recordings.
    count : int or None
        Number of scenes. None generates scenes without end.
    seed : int or sequence of int
        Seed. Scene `i` is ``compose(recordings, (seed, i))``, independent of `count` and `start`.
    config : ComposerConfig, optional
        Ranges of the random parameters.
    start : int
        Index of the first scene, to resume an interrupted stream.

    Returns
    -------
    iterator of Scene

    Raises
    ------
    AudioError
        As for :func:`compose`.
    """
    seeds = _seeds(seed)
    ordered = sorted(recordings, key=lambda recording: recording.sort_key)
    numbers = itertools.count(start) if count is None else range(start, start + count)
    return (compose(ordered, (*seeds, number), config) for number in numbers)


def _choose(recordings: Sequence[Recording], config: ComposerConfig, rng: np.random.Generator) -> list[Recording]:
    """Draw classes and one recording per class."""
    pools: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda recording: recording.sort_key):
        pools.setdefault(recording.sound, []).append(recording)
    fewest, most = config.events
    if len(pools) < fewest:
        raise AudioError(
            f"a scene needs {fewest} sounds of different classes, but the {len(recordings)} recordings given "
            f"contain {len(pools)} classes: {list(pools)}."
        )
    names = list(pools)
    count = int(rng.integers(fewest, min(most, len(names)) + 1))
    drawn = [names[i] for i in rng.choice(len(names), size=count, replace=False)]
    return [pools[sound][rng.integers(len(pools[sound]))] for sound in drawn]


def _intervals(piece: np.ndarray, start: int, config: ComposerConfig) -> Intervals:
    # Measured before the mixture is attenuated, which does not change relative levels.
    audible = np.concatenate([np.zeros(start, dtype=bool), heard(piece, config)])
    return frame_intervals(audible)


def _seeds(seed: int | Sequence[int]) -> tuple[int, ...]:
    values = [seed] if isinstance(seed, (int, np.integer)) else list(seed)
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 0 for v in values):
        raise AudioError(f"seed is {seed!r}; expected a whole number from 0, or a sequence of them.")
    return tuple(int(value) for value in values)


def _file_name(name: str | None, seeds: tuple[int, ...]) -> str:
    name = f"scene-{'-'.join(map(str, seeds))}.wav" if name is None else name
    if Path(name).name != name or not name.endswith(".wav") or name.startswith("."):
        raise AudioError(f"name is {name!r}; expected a file name that ends with .wav, without a folder.")
    return name
