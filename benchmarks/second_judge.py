"""A second classifier of the sound in a clip, with other data, features and method than the listener.

The bundled listener is a recurrent network on Auffusion's mel images of composed scenes and of their
reconstructions by the auto-encoder. This classifier is a support vector machine on statistics of MFCCs, spectral
shape and loudness over time (from librosa, with its default windows) of the original ESC-10 recordings. It
predicts one sound per clip.

Run this file for a cross-validation over ESC-10's folds, which share no source recording:

    python benchmarks/second_judge.py --data data/esc10
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from attnviz.sounds import CLASSES, Recording, read_esc10
from attnviz.sounds.recordings import RECORDING_RATE

HERE = Path(__file__).resolve().parent
FOLDS = (1, 2, 3, 4)
RATE = 16_000
N_FFT, HOP, N_MELS, N_MFCC = 1024, 512, 64, 20
RANGE_DB = 50.0
"""Range below the maximum; lower levels count as silent, because recordings have digital silence."""
ACTIVE_DB = 30.0
"""Range of active frames below the loudest one in dB; other frames are pauses."""
MODULATIONS_HZ = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
NOISE_DB = (-60.0, -30.0)
"""Level of the noise added to a second copy of each recording, relative to its loudest frame."""


class SecondJudge:
    """Classifier of the sound of a clip.

    Parameters
    ----------
    recordings : sequence of Recording
        Training recordings.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        described, labels = [], []
        for recording in recordings:
            described += [features(audio) for audio in _copies(recording)]
            labels += [recording.sound] * 2
        self.classifier: Pipeline = make_pipeline(StandardScaler(), SVC(C=10.0, gamma="scale"))
        self.classifier.fit(np.stack(described), labels)

    def name(self, audio: np.ndarray) -> str:
        """Return the predicted class of a clip ``(samples,)`` at 16 kHz."""
        return str(self.classifier.predict(features(audio)[None])[0])


def features(audio: np.ndarray) -> np.ndarray:
    """Compute features of a clip that are independent of its loudness.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,)
        At 16 kHz.

    Returns
    -------
    numpy.ndarray
        ``(numbers,)`` float64.
    """
    audio = audio / max(float(np.abs(audio).max()), 1e-9)
    magnitudes = np.abs(librosa.stft(audio, n_fft=N_FFT, hop_length=HOP))
    mel = librosa.feature.melspectrogram(S=magnitudes**2, sr=RATE, n_fft=N_FFT, n_mels=N_MELS)
    bands = librosa.power_to_db(mel, ref=np.max, top_db=RANGE_DB)
    levels = librosa.power_to_db(mel.sum(axis=0), ref=np.max, top_db=RANGE_DB)
    active = levels > -ACTIVE_DB
    mfcc = librosa.feature.mfcc(S=bands, n_mfcc=N_MFCC)
    changes = np.abs(np.diff(mfcc, axis=1, append=mfcc[:, -1:]))
    shape = np.concatenate(
        [
            librosa.feature.spectral_contrast(S=magnitudes, sr=RATE, n_fft=N_FFT, fmin=150.0),
            np.log(librosa.feature.spectral_flatness(S=magnitudes)),
            librosa.feature.spectral_centroid(S=magnitudes, sr=RATE, n_fft=N_FFT) / RATE,
            librosa.feature.spectral_bandwidth(S=magnitudes, sr=RATE, n_fft=N_FFT) / RATE,
            librosa.feature.spectral_rolloff(S=magnitudes, sr=RATE, n_fft=N_FFT) / RATE,
        ]
    )
    return np.concatenate(
        [
            mfcc[1:, active].mean(axis=1),  # the first is loudness
            mfcc[:, active].std(axis=1),
            changes[:, active].mean(axis=1),
            shape[:, active].mean(axis=1),
            shape[:, active].std(axis=1),
            _over_time(levels, active),
        ]
    )


def cross_validated(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Classify each fold with a classifier trained on the others.

    Returns
    -------
    pandas.DataFrame
        One row per recording: ``recording``, ``fold``, ``class``, ``heard``.
    """
    rows = []
    for fold in sorted({recording.fold for recording in recordings}):
        judge = SecondJudge([recording for recording in recordings if recording.fold != fold])
        rows += [
            {
                "recording": recording.name,
                "fold": fold,
                "class": recording.sound,
                "heard": judge.name(_resampled(recording)),
            }
            for recording in recordings
            if recording.fold == fold
        ]
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    """Cross-validate, and write the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of ESC-10 from `attnviz data esc10`")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "second_judge")
    options = parser.parse_args(arguments)
    judged = cross_validated(read_esc10(options.data, folds=FOLDS))
    options.out.mkdir(parents=True, exist_ok=True)
    judged.to_csv(options.out / "judged.csv", index=False)
    right = judged["class"] == judged["heard"]
    confusion = pd.crosstab(judged["class"], judged["heard"]).reindex(index=CLASSES, columns=CLASSES, fill_value=0)
    lines = [
        "# The second judge, cross-validated",
        "",
        f"Right on {right.mean():.1%} of {len(judged)} recordings of ESC-10's folds "
        f"{', '.join(map(str, sorted(judged['fold'].unique())))}, each judged by what was learnt from the other "
        "folds. Written by `python benchmarks/second_judge.py --data data/esc10`.",
        "",
        "| class | recordings | right | most often heard instead |",
        "|---|---|---|---|",
    ]
    for sound in CLASSES:
        row = confusion.loc[sound]
        wrong = row.drop(sound)
        instead = f"{wrong.idxmax()} ({wrong.max()})" if wrong.max() else ""
        lines.append(f"| {sound} | {row.sum()} | {row[sound] / row.sum():.0%} | {instead} |")
    (options.out / "README.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines[2:]))
    return 0


def _over_time(levels: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Describe the loudness from the first active frame to the last."""
    first, last = np.flatnonzero(active)[[0, -1]]
    inside = levels[first : last + 1]
    falls = np.diff(inside) if inside.size > 1 else np.zeros(1)
    spectrum = np.abs(np.fft.rfft(inside - inside.mean(), 1024)) ** 2
    rates = np.fft.rfftfreq(1024, HOP / RATE)
    edges = itertools.pairwise(MODULATIONS_HZ)
    powers = np.array([spectrum[(rates >= low) & (rates < high)].sum() for low, high in edges])
    return np.concatenate(
        [
            [active[first : last + 1].mean(), inside.std(), np.abs(falls).mean(), falls.max(), falls.min()],
            powers / max(float(spectrum.sum()), 1e-12),
        ]
    )


def _copies(recording: Recording) -> list[np.ndarray]:
    """Return a recording without and with noise at the level of scenes."""
    audio = _resampled(recording)
    rng = np.random.default_rng((recording.freesound_id, ord(recording.take[0])))
    loudest = librosa.feature.rms(y=audio, frame_length=N_FFT, hop_length=HOP).max()
    noise = rng.standard_normal(audio.size) * loudest * 10 ** (rng.uniform(*NOISE_DB) / 20)
    return [audio, audio + noise.astype(np.float32)]


def _resampled(recording: Recording) -> np.ndarray:
    return librosa.resample(recording.audio, orig_sr=RECORDING_RATE, target_sr=RATE)


if __name__ == "__main__":
    raise SystemExit(main())
