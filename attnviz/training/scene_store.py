"""Composed scenes on disk, so that training reads them instead of composing them again at every epoch."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from attnviz.audio import MEL, log_mel, mel_to_image, to_int16
from attnviz.errors import TrainingError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.ownership import Kind
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_folder
from attnviz.sounds import CLASSES, ComposerConfig, Recording, compose, read_esc10

_CHUNK = 50  # scenes a process composes at once
_FORMAT = 1  # raised when what is stored changes: an older store is then made anew

_Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
_Chunk = tuple[dict[str, np.ndarray], list[str], list[list[dict[str, Any]]]]


@dataclass(frozen=True)
class SceneStore:
    """Scenes as arrays that lie on disk and are read where they are touched.

    Attributes
    ----------
    images : numpy.ndarray
        ``(scenes, 256, columns)`` float16 in [0, 1]: the mel image, row 0 the highest frequency.
    audio : numpy.ndarray
        ``(scenes, samples)`` int16: the mixtures at 16 kHz.
    activity : numpy.ndarray
        ``(scenes, 10, columns)`` bool: which class (in the order of `CLASSES`) is audible in which column.
    captions : list of str
        One a scene.
    sounds : list of list of dict
        For each sound of a scene, by first onset: class, phrase, its characters, first onset, last offset.
    name : str
        Name of the store's folder, which tells what it was made from.
    """

    images: np.ndarray
    audio: np.ndarray
    activity: np.ndarray
    captions: list[str]
    sounds: list[list[dict[str, Any]]]
    name: str = ""

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def open(
        cls,
        cache: str | os.PathLike[str],
        esc10: str | os.PathLike[str],
        *,
        folds: Sequence[int],
        count: int,
        seed: int,
        composer: ComposerConfig,
        processes: int | None = None,
    ) -> SceneStore:
        """Open the scenes of some folds, composing them first where that has not been done.

        Parameters
        ----------
        cache : path-like
            Folder that holds stores, each in a folder named after what it was made from.
        esc10 : path-like
            ESC-10 in its published layout.
        folds : sequence of int
            Whose recordings may sound.
        count, seed : int
            Scene `i` is ``compose(recordings, (seed, i), composer)``.
        composer : ComposerConfig
            What may vary.
        processes : int, optional
            How many compose side by side; None: one for each core.

        Raises
        ------
        AudioError
            As `read_esc10`.
        OutputError
            The cache cannot be written: 0.85 MB a scene are needed.
        TrainingError
            The store in the cache is damaged.
        """
        recordings = read_esc10(esc10, folds=folds)
        made_from = {
            "format": _FORMAT,
            "recordings": [recording.name for recording in recordings],
            "count": count,
            "seed": seed,
            "composer": composer.to_dict(),
        }
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
        names = "-".join(map(str, sorted(set(folds))))
        folder = checked_path(cache, "the folder that keeps scenes", TrainingError) / f"scenes-{names}-{digest}"
        if not folder.is_dir():
            _compose_all(folder, recordings, count, seed, composer, processes)
        return cls._read(folder, _shapes(count, composer))

    @classmethod
    def _read(cls, folder: Path, shapes: _Shapes) -> SceneStore:
        try:
            # Not np.load, which takes other kinds of file, too.
            arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r") for name in shapes}
            content = read_json(folder / "scenes.json", error=TrainingError)
            captions, sounds = list(content["captions"]), list(content["sounds"])
        except (OSError, EOFError, ValueError, LookupError, TypeError, TrainingError) as error:
            raise TrainingError(
                f"the scenes in {folder} cannot be read ({error}); remove it to have it made anew."
            ) from error
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        count = len(arrays["images"])
        if found != shapes or not len(captions) == len(sounds) == count:
            raise TrainingError(
                f"{folder} holds {found}, {len(captions)} captions and {len(sounds)} lists of sounds; expected "
                f"are {shapes}, and as many of each. Remove it to have it made anew."
            )
        return cls(**arrays, captions=captions, sounds=sounds, name=folder.name)


def _shapes(count: int, composer: ComposerConfig) -> _Shapes:
    return {
        "images": ((count, MEL.n_mels, composer.frames), np.dtype(np.float16)),
        "audio": ((count, composer.frames * MEL.hop_length), np.dtype(np.int16)),
        "activity": ((count, len(CLASSES), composer.frames), np.dtype(np.bool_)),
    }


def _compose_all(
    folder: Path,
    recordings: list[Recording],
    count: int,
    seed: int,
    composer: ComposerConfig,
    processes: int | None,
) -> None:
    """Compose into a temporary folder beside `folder`, which takes its place when all is there."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    work = partial(_compose_chunk, recordings=recordings, seed=seed, composer=composer)
    captions: list[str] = []
    sounds: list[list[dict[str, Any]]] = []
    with (
        whole_folder(folder, overwrite=False, kind=Kind("scenes")) as temporary,
        ExitStack() as stack,
    ):
        files = {
            name: stack.enter_context((temporary / f"{name}.npy").open("wb")) for name in _shapes(0, composer)
        }
        for name, (shape, dtype) in _shapes(count, composer).items():
            described = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": described, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(files[name], header)
        composed = stack.enter_context(_composed(work, chunks, processes))
        described_as = f"Composing {count} scenes"
        for stored, texts, heard in track(composed, described_as, len(chunks), console=Console(stderr=True)):
            # Written piece by piece: a memory map of a full disk would end the process by a signal.
            for name, array in stored.items():
                files[name].write(array.tobytes())
            captions += texts
            sounds += heard
        content = {"captions": captions, "sounds": sounds}
        (temporary / "scenes.json").write_bytes(as_json(content, "scenes.json", indent=None))


@contextmanager
def _composed(
    work: Callable[[range], _Chunk], chunks: list[range], processes: int | None
) -> Iterator[Iterable[_Chunk]]:
    """Give what the chunks come to, in their order, composed side by side."""
    wanted = min(processes or os.cpu_count() or 1, len(chunks))
    if wanted == 1:
        yield map(work, chunks)
        return
    pool = ProcessPoolExecutor(wanted, initializer=_begin_process)
    try:
        yield pool.map(work, chunks)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that composed scenes has ended. Was there too little memory, or is this a script that does "
            "not keep its work under `if __name__ == '__main__':`?"
        ) from error
    finally:
        # When interrupted, too: what is not begun is dropped, and the chunks under way are waited for.
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    # As in a DataLoader's workers: one thread each, since those of a forked parent are not there any more.
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compose_chunk(numbers: range, recordings: list[Recording], seed: int, composer: ComposerConfig) -> _Chunk:
    stored: dict[str, list[np.ndarray]] = {"images": [], "audio": [], "activity": []}
    captions, sounds = [], []
    for number in numbers:
        scene = compose(recordings, (seed, number), composer)
        stored["images"].append(mel_to_image(log_mel(scene.mixture)).astype(np.float16))
        stored["audio"].append(to_int16(scene.mixture))
        active = np.zeros((len(CLASSES), composer.frames), dtype=bool)
        for sound, row in zip(scene.sounds, scene.activity().values, strict=True):
            active[CLASSES.index(sound.sound)] = row >= 0.5
        stored["activity"].append(active)
        captions.append(scene.caption)
        sounds.append(
            [
                {
                    "class": sound.sound,
                    "label": sound.label,
                    "span": list(sound.span),
                    "onset": sound.intervals[0][0],
                    "offset": sound.intervals[-1][1],
                }
                for sound in scene.sounds
            ]
        )
    return {name: np.stack(parts) for name, parts in stored.items()}, captions, sounds
