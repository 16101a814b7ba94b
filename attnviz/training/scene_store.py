"""Store composed scenes on disk, so that they are composed only once."""

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
from attnviz.scenes import CLASSES, ComposerConfig, Recording, compose, read_esc10

_CHUNK = 50  # scenes per task of a process
_FORMAT = 1  # increment when the stored content changes, so that older stores are rebuilt

_Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
_Chunk = tuple[dict[str, np.ndarray], list[str], list[list[dict[str, Any]]]]


@dataclass(frozen=True)
class SceneStore:
    """Scenes as memory-mapped arrays.

    Attributes
    ----------
    images : numpy.ndarray
        Mel images, shape ``(scenes, 256, columns)``, float16 in [0, 1]; row 0 is the highest frequency.
    audio : numpy.ndarray
        Mixtures at 16 kHz, shape ``(scenes, samples)``, int16.
    activity : numpy.ndarray
        Audible classes (in the order of `CLASSES`) of each column, shape ``(scenes, 10, columns)``, bool.
    captions : list of str
        Caption of each scene.
    sounds : list of list of dict
        The sounds of each scene by first onset: class, phrase, its characters, first onset, last offset.
    name : str
        Name of the store's folder, which identifies the data and settings.
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
        """Open the scenes of some folds. Compose them first if they are not in the cache.

        Parameters
        ----------
        cache : path-like
            Cache folder. Each store has a folder named after its data and settings.
        esc10 : path-like
            Folder of ESC-10 in its published layout.
        folds : sequence of int
            Folds whose recordings are used.
        count, seed : int
            Scene `i` is ``compose(recordings, (seed, i), composer)``.
        composer : ComposerConfig
            Settings of the composition.
        processes : int, optional
            Number of processes that compose scenes. By default, one per core.

        Raises
        ------
        AudioError
            See `read_esc10`.
        OutputError
            If the cache cannot be written; a scene takes 0.85 MB.
        TrainingError
            If the store in the cache is damaged.
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
        folder = checked_path(cache, "the scene cache", TrainingError) / f"scenes-{names}-{digest}"
        if not folder.is_dir():
            _compose_all(folder, recordings, count, seed, composer, processes)
        return cls._read(folder, _shapes(count, composer))

    @classmethod
    def _read(cls, folder: Path, shapes: _Shapes) -> SceneStore:
        try:
            # Not np.load, which also accepts other file types.
            arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r") for name in shapes}
            content = read_json(folder / "scenes.json", error=TrainingError)
            captions, sounds = list(content["captions"]), list(content["sounds"])
        except (OSError, EOFError, ValueError, LookupError, TypeError, TrainingError) as error:
            raise TrainingError(
                f"the scenes in {folder} cannot be read ({error}); remove the folder, and they will be composed "
                "again."
            ) from error
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        count = len(arrays["images"])
        if found != shapes or not len(captions) == len(sounds) == count:
            raise TrainingError(
                f"{folder} contains {found}, {len(captions)} captions and {len(sounds)} lists of sounds; expected "
                f"{shapes}, and as many captions and lists. Remove the folder, and the scenes will be composed "
                "again."
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
    """Compose scenes into a temporary folder, and rename it to `folder` when it is complete."""
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
            # Write piece by piece: with a memory map, a full disk would kill the process by a signal.
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
    """Compose chunks in parallel and yield the results in order."""
    wanted = min(processes or os.cpu_count() or 1, len(chunks))
    if wanted == 1:
        yield map(work, chunks)
        return
    pool = ProcessPoolExecutor(wanted, initializer=_begin_process)
    try:
        yield pool.map(work, chunks)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that composes scenes has ended. Was there too little memory, or does the script not "
            "protect its work by `if __name__ == '__main__':`?"
        ) from error
    finally:
        # Also when interrupted: cancel pending chunks and wait for the running ones.
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    # One thread per process, as in DataLoader workers, since the threads of a forked parent do not exist here.
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; the parent stops the workers.
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
