"""Stored scenes: what composing gives, once, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scenes.synthetic_scenes import PITCHES, write_layout

from attnviz.audio import log_mel, mel_to_image, to_int16
from attnviz.errors import AttnVizWarning, AudioError, OutputError, TrainingError
from attnviz.scenes import CLASSES, ComposerConfig, compose, read_esc10
from attnviz.training import scene_store
from attnviz.training.scene_store import SceneStore

COMPOSER = ComposerConfig(events=(1, 3), seconds=5.12)  # 256 x 512
COUNT, SEED = 5, 11


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory) -> Path:
    return write_layout(
        tmp_path_factory.mktemp("esc10") / "ten", classes=range(1, len(PITCHES) + 1), folds=(1,), per_fold=1
    )


@pytest.fixture
def opened(ten_classes, tmp_path):
    def open_store(**changes) -> SceneStore:
        options = {"folds": (1,), "count": COUNT, "seed": SEED, "composer": COMPOSER, "processes": 1, **changes}
        return SceneStore.open(tmp_path / "cache", ten_classes, **options)

    return open_store


def check(store: SceneStore, ten_classes: Path) -> None:
    recordings = read_esc10(ten_classes, folds=(1,))
    assert len(store) == COUNT
    for i in range(COUNT):
        scene = compose(recordings, (SEED, i), COMPOSER)
        assert np.array_equal(store.images[i], mel_to_image(log_mel(scene.mixture)).astype(np.float16))
        assert np.array_equal(store.audio[i], to_int16(scene.mixture))
        assert store.captions[i] == scene.caption
        assert [sound["class"] for sound in store.sounds[i]] == [sound.sound for sound in scene.sounds]
        for sound in store.sounds[i]:
            start, stop = sound["span"]
            assert scene.caption[start:stop] == sound["label"]
            columns = np.flatnonzero(store.activity[i, CLASSES.index(sound["class"])])
            assert abs(columns[0] / 100 - sound["onset"]) <= 0.02
            assert abs((columns[-1] + 1) / 100 - sound["offset"]) <= 0.02
        silent = set(CLASSES) - {sound["class"] for sound in store.sounds[i]}
        assert not store.activity[i, [CLASSES.index(name) for name in silent]].any()


def test_store_is_what_composing_gives(opened, ten_classes, monkeypatch):
    monkeypatch.setattr(scene_store, "_CHUNK", 2)
    store = opened()
    assert store.images.shape == (COUNT, 256, 512)
    check(store, ten_classes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_either_kind(opened, ten_classes, monkeypatch, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    monkeypatch.setattr(scene_store, "_CHUNK", 3)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        store = opened(processes=2)
    finally:
        multiprocessing.set_start_method(before, force=True)
    check(store, ten_classes)


def test_reopened_without_composing(opened, monkeypatch):
    first = opened()
    monkeypatch.setattr(scene_store, "_compose_all", None)
    again = opened()
    assert again.name == first.name
    assert np.array_equal(again.images, first.images)
    assert again.captions == first.captions
    assert not again.images.flags.writeable


def test_what_makes_another_store(opened):
    names = {opened().name, opened(seed=12).name, opened(count=4).name}
    names.add(opened(composer=ComposerConfig(events=(1, 2), seconds=5.12)).name)
    assert len(names) == 4


def test_files_are_those_of_numpy(opened, tmp_path):
    """A store that numpy's own memory maps wrote is read as well: headers are the same, byte for byte."""
    store = opened()
    folder = tmp_path / "cache" / store.name
    for name in ("images", "audio", "activity"):
        array = getattr(store, name)
        theirs = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", array.dtype, array.shape)
        theirs[:] = array
        theirs.flush()
        assert (tmp_path / "x.npy").read_bytes() == (folder / f"{name}.npy").read_bytes()


@pytest.mark.parametrize("how", ["cut", "empty", "pickle", "missing", "other shape"])
@pytest.mark.parametrize("name", ["images.npy", "scenes.json"])
def test_damaged_store(opened, tmp_path, name, how):
    path = tmp_path / "cache" / opened().name / name
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(b"\x80\x04K\x01.")
    elif how == "missing":
        path.unlink()
    elif name == "scenes.json":
        path.write_text(json.dumps({"captions": ["one"], "sounds": [[]]}))
    else:
        np.save(path, np.zeros((COUNT, 512, 256), dtype=np.float16))
    with pytest.raises(TrainingError, match="emove .* again"):
        opened()


def test_full_disk(opened, tmp_path, monkeypatch):
    def stop(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", stop)
    with pytest.raises(OutputError, match="No space left"):
        opened()
    assert not list((tmp_path / "cache").iterdir())


def test_skipped_recordings_are_told_once(tmp_path, ten_classes, monkeypatch):
    folder = write_layout(tmp_path / "esc10", classes=range(1, 11), folds=(1,))
    next(folder.glob("*/*.ogg")).write_bytes(b"OggS")
    with pytest.warns(AttnVizWarning) as caught:
        SceneStore.open(tmp_path / "cache", folder, folds=(1,), count=2, seed=0, composer=COMPOSER, processes=2)
    assert len([warning for warning in caught if "skipped" in str(warning.message)]) == 1


def test_class_without_recordings(tmp_path):
    folder = write_layout(tmp_path / "esc10", classes=range(2, 11), folds=(1,), per_fold=1)
    with pytest.raises(AudioError, match="Dog bark"):
        SceneStore.open(tmp_path / "cache", folder, folds=(1,), count=2, seed=0, composer=COMPOSER)


def test_process_that_ends(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(scene_store, "_CHUNK", 3)
    monkeypatch.setattr(scene_store, "_begin_process", _end)
    with pytest.raises(TrainingError, match="a process that composes scenes has ended"):
        opened(processes=2)
    assert not list((tmp_path / "cache").iterdir())


def _end() -> None:
    os._exit(1)


SCRIPT = """
import signal
import sys
from attnviz.scenes import ComposerConfig
from attnviz.training import scene_store
if __name__ == "__main__":
    # As in a terminal, whatever started the tests: background jobs of a shell ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scene_store._CHUNK = 4
    scene_store.SceneStore.open(
        sys.argv[1], sys.argv[2], folds=(1,), count=2000, seed=0, composer=ComposerConfig(), processes=2
    )
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_interrupted_by_the_terminal(ten_classes, tmp_path):
    """Ctrl-C reaches the parent and its processes: nothing is left, neither files nor processes."""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", SCRIPT, str(cache), str(ten_classes)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size > 10**6 for path in cache.glob(".*/images.npy")):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
    assert process.returncode != 0
    assert told.count("Traceback") == 1  # that of the parent
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert not list(cache.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
