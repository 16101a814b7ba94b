"""A full or read-only disk is an error of the family, and leaves no half-written file or folder."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from models.test_vocoder import TINY
from safetensors import SafetensorError

import attnviz
from attnviz.audio import write_wav
from attnviz.errors import AttnVizError, OutputError
from attnviz.events import event_table, write_audacity, write_csv, write_jams, write_tsv
from attnviz.io.ownership import Kind
from attnviz.io.storage import check_free, files_into, whole_folder, whole_or_nothing
from attnviz.listener.decoding import Decoding
from attnviz.models.vocoder import HifiGan, HifiGanConfig
from attnviz.testing import example_maps

TABLE = event_table([{"clip": "a.wav", "label": "dog", "onset": 0.5, "offset": 1.0}])


def save_listener(folder):
    from attnviz.listener.model import Listener, ListenerConfig

    Listener(ListenerConfig()).save_pretrained(folder)


def save_vocoder(folder):
    HifiGan(HifiGanConfig.from_dict(TINY)).save_pretrained(folder)


WRITERS = {
    "maps": lambda place: example_maps().save(place),
    "npz": lambda place: example_maps().to_npz(place),
    "labels": lambda place: example_maps().to_audacity(place),
    "wav": lambda place: write_wav(place, np.zeros(100, np.float32)),
    "tsv": lambda place: write_tsv(TABLE, place),
    "csv": lambda place: write_csv(TABLE, place),
    "jams": lambda place: write_jams(TABLE, place, seconds=2),
    "audacity": lambda place: write_audacity(TABLE, place),
    "vocoder": save_vocoder,
    "listener": save_listener,
    "decoding": lambda place: Decoding().save(place.parent),
}


@contextmanager
def largest_file(size):
    """Let no file grow beyond a size, as on a full disk; also for those that Rust and C++ write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_leaves_nothing(kind, tmp_path):
    with largest_file(10), pytest.raises(OutputError, match="Cannot write"):
        WRITERS[kind](tmp_path / "place")
    assert everything(tmp_path) == []
    WRITERS[kind](tmp_path / "place")
    before = everything(tmp_path)
    assert before
    if kind in ("vocoder", "listener"):  # written into a folder that is there
        with largest_file(10), pytest.raises(OutputError):
            WRITERS[kind](tmp_path / "place")
        assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_read_only_file_system_is_said(kind, tmp_path, monkeypatch):
    """All calls that would change anything fail, as on one; removing what is not there, too."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("mkdir", "open", "unlink", "rename", "replace", "rmdir"):
        real = getattr(Path, name)
        if name == "open":

            def guarded(self, mode="r", *arguments, _real=real, **keywords):
                return refuse() if set(mode) & set("wax+") else _real(self, mode, *arguments, **keywords)

            monkeypatch.setattr(Path, name, guarded)
        else:
            monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        WRITERS[kind](tmp_path / "place")


@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only file system"), SafetensorError("I/O error: no space")]
)
def test_every_writer_translates_what_the_block_raises(error, tmp_path):
    kind = Kind("any")
    for write in (
        lambda path: whole_or_nothing(path, overwrite=False),
        lambda path: whole_folder(path, overwrite=False, kind=kind),
        files_into,
    ):
        with pytest.raises(OutputError, match="Read-only|no space"), write(tmp_path / "place"):
            raise error
    assert everything(tmp_path) == []


def test_a_checkpoint_on_a_full_disk(adapter_checkpoint, tmp_path):
    pipe = attnviz.load(adapter_checkpoint)
    sizes = (10, 2_000, 20_000)  # in a configuration, a tokenizer, weights
    for size in sizes:
        for save in (pipe.save_pretrained, pipe.conditioner.save_pretrained):
            with largest_file(size), pytest.raises(AttnVizError, match="Cannot write"):
                save(tmp_path / "model")
            assert everything(tmp_path) == []
    pipe.conditioner.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "condition_config.json").is_file()


def test_dev_full(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OutputError, match="not what this would write|Cannot write"):
        write_wav("/dev/full", np.zeros(10, np.float32))
    with pytest.raises(OutputError):
        check_free("/dev/full/run", overwrite=False)
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(OutputError):
        write_tsv(TABLE, tmp_path / "link")
