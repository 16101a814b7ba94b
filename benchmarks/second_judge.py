"""A second classifier of the sound in a one-sound clip, with another architecture and features than the listener.

The bundled listener is a recurrent network on Auffusion's mel images. This classifier is a support vector machine
on statistics of the sound alone: the background, estimated from the quietest frames, is subtracted, and only the
frames in which the sound is active are described. It is trained on the original ESC-10 recordings and on one-sound
scenes composed from them, so that silence, fades, background and the length of a sound do not decide.

Nothing that an auto-encoder or vocoder made is trained on: the classifier would learn their colouring, and would
not notice a sound that they spoil. Both smooth spectrograms, so each training clip is described at several degrees
of smoothing instead, and the decisions for a clip at these degrees are averaged.

Run this file for a cross-validation over ESC-10's folds, which share no source recording:

    python benchmarks/second_judge.py --data data/esc10
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
import scipy.fft
import scipy.ndimage
import scipy.signal
import torch
from harness import Model, Study, parser
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from attnviz.audio import image_to_mel, log_mel, mel_to_image
from attnviz.io.storage import whole_or_nothing
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.scenes import CLASSES, ComposerConfig, Recording, compose, read_esc10
from attnviz.scenes.recordings import RECORDING_RATE
from attnviz.training.vae import reconstruct

FOLDS = (1, 2, 3, 4)
CHOICE_FOLDS = (1, 2, 3)
"""Folds of the cross-validation by which features and classifier were chosen."""
SEEN_FOLD = 4
"""Fold that earlier choices have seen. It is judged once, after training on the folds of choices."""
ONE_SOUND = ComposerConfig(events=(1, 1))
TRAINING_SCENES, TEST_SCENES = 4, 2
"""Scenes of each recording."""
TRAINING_SEED, TEST_SEED = 5, 77

RATE = 16_000
N_FFT, WINDOW, HOP, N_MELS, N_BROAD, N_MFCC = 2048, 1024, 256, 64, 16, 24
STEPS = 2
"""Steps of the envelope in a frame."""
QUIETEST = 0.3
"""Share of frames from which the background is estimated. A sound of 5 s leaves half of a clip to it."""
SEPARATE_DB = 12.0
"""Smallest difference between the loudest frame and the background. Otherwise, the sound fills the clip."""
ACTIVE_DB = 30.0
"""Range of active frames below the loudest one in dB; other frames are pauses."""
RANGE_DB = 50.0
"""Range of mel cells below the loudest one in dB."""
SILENT_DB = 90.0
"""Lower levels count as silent, because recordings have digital silence."""
SMOOTHINGS = ((0.0, 0.0), (0.7, 1.5), (1.0, 3.0))
"""Standard deviations of the smoothing of log-mel spectrograms, in bands and frames."""
MODULATIONS_HZ = (0.4, 1.0, 2.0, 4.0, 8.0, 16.0)
PERIODS = (0.03, 0.06, 0.12, 0.25, 0.6, 1.5)
"""Ranges of periods of an envelope in seconds. Shorter ones are pitch, or the frames of a vocoder."""
LOWEST_HZ = 150.0
PITCH_LAGS = (16, 400)
"""Lags of the autocorrelation of samples: 1000 to 40 Hz."""
FLATNESS_HZ = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 5600.0, 8000.0)

_WINDOW_CORRELATION = np.fft.irfft(np.abs(np.fft.rfft(scipy.signal.get_window("hann", WINDOW), N_FFT)) ** 2)[
    : PITCH_LAGS[1]
]
_WINDOW_CORRELATION /= _WINDOW_CORRELATION[0]
_MEL = librosa.filters.mel(sr=RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=50.0, fmax=RATE / 2)
_FRAME_SECONDS = HOP / RATE
_MODULATION_FRAMES = 256
_SLOPE = np.array([2, 1, 0, -1, -2]) / 10
_SLOW_SLOPE = np.concatenate([np.ones(6), [0], -np.ones(6)]) / 6


class SecondJudge:
    """Classifier of the sound of a clip.

    Parameters
    ----------
    recordings : sequence of Recording
        Training recordings.
    scenes : int
        Number of scenes composed of each recording for training.
    """

    def __init__(self, recordings: Sequence[Recording], scenes: int = TRAINING_SCENES) -> None:
        described = [_training_features(recording, scenes) for recording in recordings]
        labels = np.repeat([recording.sound for recording in recordings], [len(rows) for rows in described])
        inputs = np.concatenate(described)
        self.classifier: Pipeline = make_pipeline(StandardScaler(), SVC(C=5.0, gamma=0.3 / inputs.shape[1]))
        self.classifier.fit(inputs, labels)

    def name(self, audio: np.ndarray) -> str:
        """Return the predicted class of a clip ``(samples,)`` at 16 kHz."""
        scores = self.classifier.decision_function(features(audio)).mean(axis=0)
        return str(self.classifier.classes_[scores.argmax()])


@dataclass(frozen=True)
class Sound:
    """Time series of the sound in a clip, without the background.

    Attributes
    ----------
    decibels : numpy.ndarray
        Mel spectrogram, ``(N_MELS, frames)`` float64, at most `RANGE_DB` below its maximum.
    active : numpy.ndarray
        ``(frames,)`` bool: the sound is at most `ACTIVE_DB` below its loudest frame, and above the background.
    harmonicity : numpy.ndarray
        Highest autocorrelation of each active frame in the range of pitches, ``(active frames,)``.
    flatness : numpy.ndarray
        Natural logarithm of the spectral flatness by band, ``(bands, active frames)``.
    envelope : numpy.ndarray
        Level in dB of the difference of successive samples, ``(steps,)``, `STEPS` in a frame.
    """

    decibels: np.ndarray
    active: np.ndarray
    harmonicity: np.ndarray
    flatness: np.ndarray
    envelope: np.ndarray


def features(audio: np.ndarray) -> np.ndarray:
    """Compute features of the sound in a clip.

    They do not depend on loudness, on the position of the sound, or on stationary noise well below it.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,)
        At 16 kHz.

    Returns
    -------
    numpy.ndarray
        ``(degrees of smoothing, numbers)`` float64.
    """
    sound = separated(audio)
    return np.stack([_described(_smoothed(sound, bands, frames)) for bands, frames in SMOOTHINGS])


def separated(audio: np.ndarray) -> Sound:
    """Separate the sound in a clip ``(samples,)`` at 16 kHz from the background."""
    audio = np.asarray(audio, dtype=np.float32) / max(float(np.abs(audio).max()), 1e-9)
    audio = librosa.util.fix_length(audio, size=max(audio.size, N_FFT))
    spectrum = librosa.stft(audio, n_fft=N_FFT, win_length=WINDOW, hop_length=HOP, pad_mode="constant")
    energy = spectrum.real**2 + spectrum.imag**2
    mel = _MEL @ energy
    loudest = max(float(mel.sum(axis=0).max()), 1e-12)
    mel = np.maximum(mel, loudest * 10 ** (-SILENT_DB / 10) / N_MELS)
    power = mel.sum(axis=0)
    quiet = float(np.quantile(power, QUIETEST))
    threshold = loudest * 10 ** (-ACTIVE_DB / 10)
    if quiet < loudest * 10 ** (-SEPARATE_DB / 10):
        background = mel[:, power <= quiet].mean(axis=1, keepdims=True)
        mel = np.maximum(mel - background, 0.0)
        power = mel.sum(axis=0)
        threshold = max(threshold, float(background.sum()))
    active = power > threshold
    active[power.argmax()] = True
    decibels = 10 * np.log10(np.maximum(mel, 1e-20))
    return Sound(
        np.maximum(decibels, decibels.max() - RANGE_DB),
        active,
        _harmonicity(energy[:, active]),
        _flatness(energy[:, active]),
        _envelope(audio, active.size),
    )


def judged_rows(
    recordings: Sequence[Recording], forms: Mapping[str, Callable[[Recording], Iterable[np.ndarray]]], fold: int
) -> list[dict[str, Any]]:
    """Classify the clips of a fold with a classifier trained on other folds.

    Recordings of `SEEN_FOLD` are never trained on.

    Parameters
    ----------
    recordings : sequence of Recording
        Recordings of at least two folds.
    forms : mapping from str to callable
        For each form, a function that makes the clips at 16 kHz of a recording.
    fold : int

    Returns
    -------
    list of dict
        One row per clip: ``form``, ``recording``, ``fold``, ``class``, ``heard``.
    """
    judge = SecondJudge([known for known in recordings if known.fold not in (fold, SEEN_FOLD)])
    return [
        {
            "form": form,
            "recording": recording.name,
            "fold": fold,
            "class": recording.sound,
            "heard": judge.name(clip),
        }
        for recording in recordings
        if recording.fold == fold
        for form, clips in forms.items()
        for clip in clips(recording)
    ]


def resampled(recording: Recording) -> np.ndarray:
    """Return the whole recording at 16 kHz."""
    return librosa.resample(recording.audio, orig_sr=RECORDING_RATE, target_sr=RATE)


def one_sound_scenes(recording: Recording, count: int, seed: int) -> Iterator[np.ndarray]:
    """Compose scenes of an excerpt of a recording and a background, with random lengths, places and levels."""
    for number in range(count):
        yield compose([recording], (seed, recording.freesound_id, ord(recording.take), number), ONE_SOUND).mixture


def copied(pipe: AuffusionPipeline, audio: np.ndarray) -> np.ndarray:
    """Return a clip after the auto-encoder and the vocoder of a model."""
    image = reconstruct(pipe.vae, mel_to_image(log_mel(audio))[None])[0]
    with torch.no_grad():
        return pipe.vocoder(torch.from_numpy(image_to_mel(image))[None]).numpy()[0]


@dataclass(frozen=True)
class Settings:
    """Settings of the cross-validation; ``each``: number of recordings of a class and fold, or None for all."""

    data: Path
    model: str
    each: int | None = None


def main(arguments: list[str] | None = None) -> int:
    """Cross-validate, and write the accuracies."""
    options = parser(__doc__, "second_judge", data=True)
    options.add_argument("--cache", type=Path, help="folder in which copies by the model are kept (200 MB)")
    given = options.parse_args(arguments)
    model = Model(given.model)
    settings = Settings(given.data, model.fingerprint, 1 if given.tiny else None)
    study = Study(given.out, settings, {"judged": ("judged",)}, fresh=["judged"] if given.fresh else ())
    copies = _Copies(model, given.cache)
    forms = {
        "recording": lambda recording: [resampled(recording)],
        "scene": lambda recording: one_sound_scenes(recording, TEST_SCENES, TEST_SEED),
        "copy": lambda recording: map(copies, one_sound_scenes(recording, 1, TEST_SEED)),
    }
    recordings = _first(read_esc10(given.data, folds=FOLDS), settings.each)
    study.cases("judged", FOLDS, lambda fold, _: judged_rows(recordings, forms, fold))
    text, *sections = _report(study.tables()["judged"])
    study.page("The second judge, cross-validated", [text], sections=[*sections, ""])
    print("\n".join(sections))
    return 0


def _first(recordings: Sequence[Recording], each: int | None) -> list[Recording]:
    """Return the first recordings of each class and fold."""
    groups: dict[tuple[int, str], list[Recording]] = {}
    for recording in recordings:
        groups.setdefault((recording.fold, recording.sound), []).append(recording)
    return [recording for group in groups.values() for recording in group[:each]]


@cache
def _training_features(recording: Recording, scenes: int) -> np.ndarray:
    """Compute the features of a recording and of scenes of it, ``(clips * degrees of smoothing, numbers)``."""
    clips = [resampled(recording), *one_sound_scenes(recording, scenes, TRAINING_SEED)]
    return np.concatenate([features(clip) for clip in clips])


class _Copies:
    """Copies of clips by a model, kept in a folder if there is one."""

    def __init__(self, model: Model, folder: Path | None) -> None:
        self.pipe, self.folder = model.pipe, folder
        known = hashlib.sha256()
        for path in sorted(file for part in ("vae", "vocoder") for file in (model.folder / part).glob("*")):
            known.update(path.read_bytes())
        self.weights = known.digest()

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        if self.folder is None:
            return copied(self.pipe, audio)
        path = self.folder / f"{hashlib.sha256(self.weights + audio.tobytes()).hexdigest()[:24]}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_or_nothing(path, overwrite=True) as partial:
                np.save(partial, copied(self.pipe, audio))
        return np.load(path)


_FORMS = {"recording": "recordings", "scene": "scenes", "copy": "copies"}


def _report(judged: pd.DataFrame) -> list[str]:
    right = judged["class"] == judged["heard"]
    chosen = judged["fold"].isin(CHOICE_FOLDS)
    lines = [
        "Written by `python benchmarks/second_judge.py --data data/esc10`. Recordings are whole recordings of "
        "ESC-10. "
        f"Scenes are clips of 10.24 s of the form of one-sound generations: {TEST_SCENES} of each recording, an "
        "excerpt of 1 to 5 s at a random place over a background. Copies are scenes after the model's "
        "auto-encoder and vocoder, one of each recording: what a perfect denoiser could reach. "
        "No copy is trained on. Features and the smoothing of training clips were chosen with the copies of folds "
        "1 to 3 by the shipped auto-encoder and vocoder in view.",
        f"| right | {' | '.join(_FORMS.values())} |",
        "|---|---|---|---|",
    ]
    for name, part in (
        (f"folds {', '.join(map(str, CHOICE_FOLDS))}, each judged by the other two", chosen),
        (f"fold {SEEN_FOLD}, judged by the others; seen by earlier choices", ~chosen),
    ):
        cells = [
            f"{right[part & (judged['form'] == form)].mean():.1%} of {(part & (judged['form'] == form)).sum()}"
            for form in _FORMS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for title, part in (
        (f"Folds {', '.join(map(str, CHOICE_FOLDS))}, by class", chosen),
        (f"Fold {SEEN_FOLD}, by class", ~chosen),
    ):
        lines += [
            "",
            f"## {title}",
            "",
            "| class | recordings | scenes | instead | copies | instead |",
            "|---|---|---|---|---|---|",
        ]
        for sound in CLASSES:
            shares, others = [], []
            for form in _FORMS:
                heard = judged.loc[part & (judged["form"] == form) & (judged["class"] == sound), "heard"]
                shares.append(f"{(heard == sound).mean():.0%}")
                wrong = heard[heard != sound].value_counts()
                others.append(f"{wrong.index[0]} ({wrong.iloc[0]} of {len(heard)})" if len(wrong) else "")
            lines.append(f"| {sound} | {shares[0]} | {shares[1]} | {others[1]} | {shares[2]} | {others[2]} |")
    return lines


def _harmonicity(energy: np.ndarray) -> np.ndarray:
    pitched = np.ascontiguousarray(energy.T)
    pitched[:, : round(LOWEST_HZ / RATE * N_FFT)] = 0.0
    correlation = scipy.fft.irfft(pitched)[:, : PITCH_LAGS[1]]
    relative = correlation / np.maximum(correlation[:, :1], 1e-20) / _WINDOW_CORRELATION
    return relative[:, PITCH_LAGS[0] :].max(axis=1)


def _flatness(energy: np.ndarray) -> np.ndarray:
    edges = [round(edge / RATE * N_FFT) for edge in FLATNESS_HZ]
    bands = [energy[low:high] + 1e-20 for low, high in itertools.pairwise(edges)]
    return np.stack([np.log(band).mean(axis=0) - np.log(band.mean(axis=0)) for band in bands])


def _envelope(audio: np.ndarray, frames: int) -> np.ndarray:
    step = HOP // STEPS
    changes = np.pad(np.diff(audio, prepend=audio[:1]), (HOP // 2, HOP))[: frames * HOP]  # frames are centred
    levels = 10 * np.log10((changes.reshape(-1, step) ** 2).mean(axis=1) + 1e-20)
    return np.maximum(levels, levels.max() - RANGE_DB)


def _smoothed(sound: Sound, bands: float, frames: float) -> Sound:
    if not bands and not frames:
        return sound
    return replace(
        sound,
        decibels=scipy.ndimage.gaussian_filter(sound.decibels, (bands, frames), mode="nearest"),
        envelope=scipy.ndimage.gaussian_filter1d(sound.envelope, frames * STEPS / 2, mode="nearest"),
    )


def _described(found: Sound) -> np.ndarray:
    """Compute statistics of the active frames, ``(numbers,)``."""
    decibels, active = found.decibels, found.active
    first, last = np.flatnonzero(active)[[0, -1]]
    inside = slice(first, last + 1)
    sound = decibels[:, active]
    broad = decibels.reshape(N_BROAD, -1, active.size).mean(axis=1)
    mfcc = scipy.fft.dct(decibels - sound.mean(), axis=0, norm="ortho")[:N_MFCC]
    mean_power = 10 * np.log10((10 ** (sound / 10)).mean(axis=1))
    slopes = [
        np.abs(scipy.ndimage.convolve1d(mfcc[:, inside], weights, axis=1, mode="nearest")[:, active[inside]])
        for weights in (_SLOPE, _SLOW_SLOPE)
    ]
    deviation = mfcc[:, active].std(axis=1)
    return np.concatenate(
        [
            mfcc[1:, active].mean(axis=1),  # the first is loudness
            deviation,
            slopes[0].mean(axis=1),
            np.log(slopes[0].mean(axis=1) / (deviation + 0.1) + 0.01),
            slopes[1].mean(axis=1),
            np.quantile(broad[:, active] - broad[:, active].mean(), (0.1, 0.5, 0.9), axis=1).ravel(),
            scipy.fft.dct(mean_power - mean_power.mean(), norm="ortho")[1:N_MFCC],
            _modulations(broad[:, inside]),
            _levels(decibels, active, inside),
            _tonality(decibels, active),
            [found.harmonicity.mean(), found.harmonicity.std()],
            np.quantile(found.harmonicity, (0.5, 0.9)),
            found.flatness.mean(axis=1),
            _rhythm(found.envelope[first * STEPS : (last + 1) * STEPS]),
        ]
    )


def _modulations(broad: np.ndarray) -> np.ndarray:
    """Describe the changes of level in broad bands by rate, and how far bands change together."""
    changes = broad - broad.mean(axis=1, keepdims=True)
    frames = changes.shape[1]
    power = np.zeros((N_BROAD, _MODULATION_FRAMES // 2 + 1))
    for start in range(0, max(1, frames - _MODULATION_FRAMES // 2), _MODULATION_FRAMES):
        piece = changes[:, start : start + _MODULATION_FRAMES]
        window = np.hanning(piece.shape[1] + 2)[1:-1]
        power += np.abs(np.fft.rfft(piece * window, _MODULATION_FRAMES, axis=1)) ** 2
    rates = np.fft.rfftfreq(_MODULATION_FRAMES, _FRAME_SECONDS)
    edges = itertools.pairwise(MODULATIONS_HZ)
    by_rate = np.array([power[:, (rates >= low) & (rates < high)].sum(axis=1) for low, high in edges])
    pairs = by_rate.reshape(len(by_rate), N_BROAD // 2, 2).sum(axis=2)
    scale = np.sqrt((changes**2).sum(axis=1, keepdims=True)) + 1e-3
    together = (changes / scale) @ (changes / scale).T
    return np.concatenate(
        [
            np.log10(pairs / frames + 0.1).ravel(),
            np.log10(by_rate.sum(axis=1) / (by_rate.sum() + 1e-9) + 0.01),
            [together[np.triu_indices(N_BROAD, 1)].mean(), *(np.diag(together, d).mean() for d in (1, 4, 8))],
        ]
    )


def _levels(decibels: np.ndarray, active: np.ndarray, inside: slice) -> np.ndarray:
    """Describe the level between the first and last active frame, and the lengths of active runs."""
    levels = 10 * np.log10((10 ** (decibels / 10)).sum(axis=0))
    levels -= levels.max()
    between = levels[inside]
    steps = np.diff(between) if between.size > 1 else np.zeros(1)
    closed = scipy.ndimage.binary_closing(np.pad(active, 10), np.ones(5))
    lengths = np.diff(np.flatnonzero(np.diff(closed.astype(int))))[::2] * _FRAME_SECONDS
    seconds = between.size * _FRAME_SECONDS
    return np.array(
        [
            active[inside].mean(),
            between.std(),
            np.abs(steps).mean(),
            steps.max(),
            steps.min(),
            *np.quantile(levels[active], (0.1, 0.5, 0.9)),
            np.log(lengths.mean()),
            np.log(lengths.max()),
            len(lengths) / (seconds + 0.3),
            np.log(seconds),
        ]
    )


def _tonality(decibels: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Describe how far bands stand out of their neighbours, in single frames and on average."""
    peaks = (decibels - scipy.ndimage.gaussian_filter1d(decibels, 3, axis=0))[:, active]
    regions = np.array_split(peaks, 6)
    return np.array(
        [*(region.std(axis=0).mean() for region in regions), *(region.mean(axis=1).std() for region in regions)]
    )


def _rhythm(envelope: np.ndarray) -> np.ndarray:
    """Describe how impulsive an envelope in dB is, and its autocorrelation by range of periods."""
    levels = envelope - envelope.mean()
    relative = levels / (levels.std() + 1e-3)
    steps = np.diff(envelope)
    size = 2 ** int(np.ceil(np.log2(2 * envelope.size)))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(levels, size)) ** 2)
    lags = [round(period * RATE / HOP * STEPS) for period in PERIODS]
    correlation = np.pad(correlation[: min(size // 2, lags[-1])], (0, lags[-1])) / (correlation[0] + 1e-3)
    return np.array(
        [
            levels.std(),
            (relative**3).mean(),
            np.log((relative**4).mean() + 0.1),
            np.abs(steps).mean(),
            *np.quantile(steps, (0.02, 0.98)),
            *(correlation[low:high].max() for low, high in itertools.pairwise(lags)),
            *(correlation[low:high].max() - correlation[low:high].min() for low, high in itertools.pairwise(lags)),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
