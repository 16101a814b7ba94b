"""Small recordings made by formula, as files in ESC-10's layout and in memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from attnviz.scenes.recordings import CLASSES, RECORDING_RATE, Recording, class_folder

BURSTS = ((0.5, 0.9), (1.6, 2.2), (3.0, 3.4))  # seconds; digital silence between
PITCHES = (400, 620, 860, 1150, 1500, 1950, 2500, 3200, 4000, 5000)  # Hz, one a class


def bursts(frequency: float, rate: int = RECORDING_RATE, seconds: float = 4.0, where=BURSTS) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    on = np.zeros(time.size, dtype=bool)
    for onset, offset in where:
        on[round(onset * rate) : round(offset * rate)] = True
    return (0.3 * np.sin(2 * np.pi * frequency * time) * on).astype(np.float32)


def recording_of(
    audio: np.ndarray, class_id: int = 1, source: int = 1, fold: int = 1, take: str = "A"
) -> Recording:
    """A recording with its audio in memory: there is no file."""
    name = f"{fold}-{source}-{take}.ogg"
    path = Path("nowhere") / class_folder(class_id) / name
    recording = Recording(path, CLASSES[class_id - 1], class_id, fold, source, take)
    recording.__dict__["audio"] = np.asarray(audio, dtype=np.float32)
    return recording


def library(takes: int = 2) -> list[Recording]:
    """All ten classes, told apart by pitch."""
    found = []
    for class_id, pitch in enumerate(PITCHES, start=1):
        for take in range(takes):
            rng = np.random.default_rng([class_id, take])
            noise = 1e-4 * rng.standard_normal(4 * RECORDING_RATE)
            found.append(recording_of(bursts(pitch) + noise, class_id, 100 * class_id + take))
    return found


def ogg(audio: np.ndarray, rate: int = RECORDING_RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue()


def write_layout(root: Path, classes=(1, 2, 3), folds=(1, 2), per_fold: int = 2, seconds: float = 1.0) -> Path:
    for class_id in classes:
        folder = root / class_folder(class_id)
        folder.mkdir(parents=True)
        content = ogg(bursts(PITCHES[class_id - 1], seconds=seconds, where=((0.1, 0.4),)))
        for fold in folds:
            for number in range(per_fold):
                (folder / f"{fold}-{1000 * class_id + 100 * fold + number}-A.ogg").write_bytes(content)
    return root
