"""Scenes of known sounds at known times, drawn by a seed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attnviz.audio import MEL
from attnviz.errors import AudioError
from attnviz.sounds.audibility import FRAME_SECONDS, Intervals, frame_intervals, frame_levels
from attnviz.sounds.captions import Heard, write_caption
from attnviz.sounds.config import ComposerConfig
from attnviz.sounds.placing import coloured_noise, cut_sound, heard, place, starts_anywhere, starts_in_sequence
from attnviz.sounds.recordings import Recording
from attnviz.sounds.scene import Scene, SceneSound, add_up

_PEAK = 0.95  # a mixture louder than this is turned down as a whole
_FILLED = 0.9  # sounds one after another are cut to fill at most this share of the scene
_STEEPEST = 2.0  # exponent of brown noise


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
        What may sound in it, in any order: a class is drawn first, then one of its recordings.
    seed : int or sequence of int
        Not negative. The same seed, recordings and settings give the same scene to the last bit.
    config : ComposerConfig, optional
        What may vary, by how much, and what counts as audible.
    name : str, optional
        File name of the mixture; by default ``scene-<seed>.wav``.

    Returns
    -------
    Scene
        The mixture, its stems, a caption and the events.

    Raises
    ------
    AudioError
        No recordings, fewer classes than sounds of a scene, a seed that is none, or a recording that cannot
        be read any more.

    Notes
    -----
    Each sound is a piece of a recording that holds its loudest moment, without inaudible ends. All begin at
    a column of the spectrogram (10 ms). In a sequence every piece is over before the next begins. A
    mixture that would exceed 0.95 is turned down as a whole, its background too.

    The draws are numpy's, so the same scene is promised for one version of numpy, and of soxr, only.
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


def scenes(
    recordings: Sequence[Recording],
    count: int | None,
    seed: int | Sequence[int],
    config: ComposerConfig | None = None,
    *,
    start: int = 0,
) -> Iterator[Scene]:
    """Compose scenes one after another, as they are asked for.

    Parameters
    ----------
    recordings : sequence of Recording
        What may sound in them.
    count : int or None
        How many; None: without end.
    seed : int or sequence of int
        Scene `i` is ``compose(recordings, (seed, i))``, whatever `count` and `start` are.
    config : ComposerConfig, optional
        What may vary.
    start : int
        Number of the first scene: a stream that was interrupted goes on there.

    Yields
    ------
    Scene

    Raises
    ------
    AudioError
        As :func:`compose`.
    """
    seeds = _seeds(seed)
    ordered = sorted(recordings, key=lambda recording: recording.sort_key)
    numbers = itertools.count(start) if count is None else range(start, start + count)
    for number in numbers:
        yield compose(ordered, (*seeds, number), config)


def _choose(recordings: Sequence[Recording], config: ComposerConfig, rng: np.random.Generator) -> list[Recording]:
    """Draw classes, and one recording of each."""
    pools: dict[str, list[Recording]] = {}
    for recording in sorted(recordings, key=lambda recording: recording.sort_key):
        pools.setdefault(recording.sound, []).append(recording)
    fewest, most = config.events
    if len(pools) < fewest:
        raise AudioError(
            f"a scene of {fewest} sounds of different classes was asked for, and the {len(recordings)} "
            f"recordings given are of {len(pools)} classes: {list(pools)}."
        )
    names = list(pools)
    count = int(rng.integers(fewest, min(most, len(names)) + 1))
    drawn = [names[i] for i in rng.choice(len(names), size=count, replace=False)]
    return [pools[sound][rng.integers(len(pools[sound]))] for sound in drawn]


def _intervals(piece: np.ndarray, start: int, config: ComposerConfig) -> Intervals:
    # Measured before a mixture is turned down, which changes no sound against another.
    audible = np.concatenate([np.zeros(start, dtype=bool), heard(piece, config)])
    return frame_intervals(audible)


def _seeds(seed: int | Sequence[int]) -> tuple[int, ...]:
    values = [seed] if isinstance(seed, (int, np.integer)) else list(seed)
    if not values or any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) or v < 0 for v in values):
        raise AudioError(f"seed is {seed!r}; a whole number from 0, or several, are needed.")
    return tuple(int(value) for value in values)


def _file_name(name: str | None, seeds: tuple[int, ...]) -> str:
    name = f"scene-{'-'.join(map(str, seeds))}.wav" if name is None else name
    if Path(name).name != name or not name.endswith(".wav") or name.startswith("."):
        raise AudioError(f"name is {name!r}; a file name that ends with .wav, without a folder, is needed.")
    return name
