"""Folders are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnviz.errors import OutputError
from attnviz.io.ownership import Kind
from attnviz.io.storage import check_free, whole_folder

ANY = Kind("any", signed=lambda folder: True, names=".*", manifest=False)
NONE = Kind("none")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_folder_appears_only_when_whole(tmp_path):
    with whole_folder(tmp_path / "a" / "run", overwrite=False, kind=ANY) as temporary:
        (temporary / "file").write_text("1")
        assert names(tmp_path / "a") == [temporary.name]
    assert names(tmp_path / "a") == ["run"]
    assert (tmp_path / "a" / "run" / "file").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "run", overwrite=False, kind=ANY) as temporary:
        (temporary / "file").touch()
        raise error
    assert names(tmp_path) == []


def test_failing_overwrite_keeps_the_old_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with (
        pytest.raises(OutputError, match="No space"),
        whole_folder(tmp_path / "run", overwrite=True, kind=ANY) as temporary,
    ):
        (temporary / "new").touch()
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["old"]


def test_overwrite_replaces_all(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with whole_folder(tmp_path / "run", overwrite=True, kind=ANY) as temporary:
        (temporary / "new").touch()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["new"]


def test_a_failing_swap_puts_the_old_one_back(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    rename = Path.rename

    def fail_for_the_new_one(self, target):
        if self.name.endswith(".partial") and target == tmp_path / "run":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with (
        pytest.raises(OutputError, match="Input/output"),
        whole_folder(tmp_path / "run", overwrite=True, kind=ANY) as temporary,
    ):
        (temporary / "new").touch()
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["old"]


def test_refusals(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    for path, overwrite, message in [
        ("file", True, "is a file and not a folder"),
        ("run", False, "exists already"),
        ("run", True, "has no file that shows"),
        ("file/below", False, "Cannot write"),
        ("\0", False, "null character"),
    ]:
        with pytest.raises(OutputError, match=message):
            check_free(tmp_path / path, overwrite=overwrite, kind=NONE)
    for path, message in (
        *(("", "is empty"), ("/", "names nothing"), ("x" * 5000, "too long"), ("~nosuch/x", "unknown user")),
        (None, "a path is"),
    ):
        with pytest.raises(OutputError, match=message):
            check_free(path, overwrite=True, kind=ANY)
    assert names(tmp_path) == ["file", "run"]


def test_a_place_that_cannot_be_written_is_known_beforehand(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        check_free(tmp_path / "deep" / "run", overwrite=False, kind=ANY)


def test_new_files_are_readable_by_others(tmp_path):
    """Not so with tempfile, whose folders only their owner may enter."""
    with whole_folder(tmp_path / "run", overwrite=False, kind=ANY):
        pass
    (tmp_path / "ordinary").mkdir()
    assert (tmp_path / "run").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
