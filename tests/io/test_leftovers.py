"""What a killed process leaves is put back or removed once it is dead, and never that of a living one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from attnviz.cli.app import app
from attnviz.io.leftovers import as_leftover, find_leftovers, temporary_path
from attnviz.io.ownership import Kind
from attnviz.io.storage import check_free, whole_folder, write_whole

RUN = Kind("run")
DEAD = "-999999999-"

WRITER = """
import os, sys, time
from attnviz.io import storage
from attnviz.io.ownership import Kind
where = sys.argv[2]
if where == "swap":  # stops between the two renames
    rename = storage.Path.rename
    def stop(self, target):
        if self.name.endswith(".partial"):
            print("here", flush=True); time.sleep(60)
        return rename(self, target)
    storage.Path.rename = stop
with storage.whole_folder(sys.argv[1], overwrite=True, kind=Kind("run")) as place:
    (place / "new").touch()
    if where == "block":
        print("here", flush=True); time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, name="old"):
    with whole_folder(folder, overwrite=True, kind=RUN) as place:
        (place / name).touch()


def left(target, role, *, pid=DEAD):
    path = temporary_path(target, role)
    path = path.with_name(path.name.replace(f"-{os.getpid()}-", pid))
    path.mkdir()
    (path / "half").touch()
    return path


@pytest.mark.parametrize("where", ["block", "swap"])
def test_a_kill_leaves_what_the_next_run_removes(where, tmp_path):
    run = tmp_path / "run"
    write(run)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(run), where], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "here\n"
        check_free(tmp_path / "run", overwrite=True, kind=RUN) if where == "block" else None
        assert len(names(tmp_path)) == 2  # of a living process: left alone
        process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
        if where == "swap":
            assert not run.exists()
        # Not collected by its parent yet, and dead all the same.
        check_free(run, overwrite=True, kind=RUN)
        assert names(tmp_path) == ["run"]
        assert "old" in names(run)
    finally:
        process.kill()
        process.wait()
    write(run, "new")
    assert "new" in names(run)


def test_of_whom_nothing_is_known_is_left_alone(tmp_path):
    mine = left(tmp_path / "run", "partial", pid=f"-{os.getpid()}-")
    place = as_leftover(mine)
    assert not place.dead
    elsewhere = mine.with_name(
        mine.name.replace(mine.name.split(".")[2][:8], "0" * 8).replace(str(os.getpid()), "1")
    )
    mine.rename(elsewhere)
    assert not as_leftover(elsewhere).dead
    (tmp_path / ".run.1a2b3c4d.partial").mkdir()
    (tmp_path / ".holiday.partial").mkdir()
    before = names(tmp_path)
    write(tmp_path / "run")
    assert names(tmp_path) == sorted([*before, "run"])


def test_a_process_that_has_the_number_of_a_dead_one_is_another(tmp_path):
    path = left(tmp_path / "run", "partial", pid=f"-{os.getpid()}-")
    pid, start = path.name.split("-")[1:3]
    path = path.rename(path.with_name(path.name.replace(f"-{pid}-{start}-", f"-{pid}-{int(start) - 3600}-")))
    assert as_leftover(path).dead
    write_whole(tmp_path / "other", b"")
    assert path.exists()
    write(tmp_path / "run")
    assert names(tmp_path) == ["other", "run"]


@pytest.mark.parametrize("name", ["r" * 250, "ä" * 120, ".hidden", "a.b.partial", "line\nbreak"])
def test_any_name_can_be_written_and_cleared(name, tmp_path):
    left(tmp_path / name, "partial")
    (left(tmp_path / name, "replaced") / "half").unlink()
    write_whole(tmp_path / "beside", b"")
    write(tmp_path / name)
    assert names(tmp_path) == sorted(["beside", name])


def test_clean(tmp_path):
    left(tmp_path / "gone", "partial")
    (tmp_path / "deep").mkdir()
    left(tmp_path / "deep" / "run", "replaced")
    alive = left(tmp_path / "alive", "partial", pid=f"-{os.getpid()}-")
    assert len(list(find_leftovers(tmp_path))) == 3
    result = CliRunner().invoke(app, ["clean", str(tmp_path)], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == sorted(["deep", alive.name])
    assert names(tmp_path / "deep") == ["run"]
    output = " ".join(result.output.split())
    assert "removed" in output
    assert "put back" in output
    missing = CliRunner().invoke(app, ["clean", str(tmp_path / "nosuch")])
    assert missing.exit_code == 1
