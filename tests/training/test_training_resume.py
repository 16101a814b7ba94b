"""A training that was stopped and gone on with is the one that never was, to the last bit."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training.training_toys import toy_config

from attnviz.errors import OutputError, TrainingError
from attnviz.io.leftovers import temporary_path
from attnviz.training import loop
from attnviz.training.checkpoints import list_checkpoints
from attnviz.training.run_folder import tidy_run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "model" / "toy.safetensors")


def metrics(run: Path) -> list[tuple[str, ...]]:
    """All but the seconds."""
    rows = list(csv.reader((run / "metrics.csv").open(encoding="utf-8")))
    return [(row[0], *row[2:]) for row in rows]


def samples(run: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in (run / "samples").glob("*/weight.txt")}


def same_outcome(run: Path, other: Path) -> None:
    assert weights(run).keys() == weights(other).keys()
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(other)[name]), name
    assert metrics(run) == metrics(other)
    assert samples(run) == samples(other)
    newest = [list_checkpoints(folder)[-1] for folder in (run, other)]
    assert newest[0].name == newest[1].name
    states = [safetensors.torch.load_file(path / "state.safetensors") for path in newest]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class Stopped(BaseException):
    """What ends a process at once, as far as the training can tell."""


def stop_at(call: int, error: type[BaseException] = Stopped):
    def before_batch(number: int) -> None:
        if number == call:
            raise error

    return before_batch


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("step", [2, 3, 4, 6, 7])  # the step that is not finished; checkpoints are at 2, 4, 6, 7
def test_resumed_is_uninterrupted(toy_training, tmp_path, step, accumulation):
    config = toy_config(gradient_accumulation=accumulation)
    toy_training(config, "whole", held_out=True)
    call = (step - 1) * accumulation + accumulation
    with pytest.raises(Stopped):
        toy_training(config, "stopped", held_out=True, before_batch=stop_at(call))
    assert not (tmp_path / "stopped" / "model").exists()
    toy_training(config, "stopped", held_out=True, resume=True)
    same_outcome(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_stopped_between_a_steps_samples_and_its_checkpoint(toy_training, tmp_path, monkeypatch, ema_decay):
    config = toy_config(checkpoint_every=3, ema_decay=ema_decay)
    toy_training(config, "whole", held_out=True)
    real = loop.save_checkpoint

    def save(run, step, *rest):
        if step == 6:
            raise Stopped
        real(run, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        with pytest.raises(Stopped):
            toy_training(config, "stopped", held_out=True)
    assert "step-0000006" in samples(tmp_path / "stopped")
    toy_training(config, "stopped", held_out=True, resume=True)
    same_outcome(tmp_path / "stopped", tmp_path / "whole")


def test_no_metric_of_a_window_is_lost(toy_training, tmp_path):
    """The checkpoint of step 4 lies within the window of steps 4 to 6, of which a mean is logged."""
    config = toy_config(keep_checkpoints=9)
    toy_training(config, "whole")
    with pytest.raises(Stopped):
        toy_training(config, "stopped", before_batch=stop_at(5))
    toy_training(config, "stopped", resume=True)
    losses = [row for row in metrics(tmp_path / "stopped") if row[1] == "loss"]
    assert [row[0] for row in losses] == ["3", "6", "7"]
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


SCRIPT = """
import sys, time
from unittest import mock
from training.training_toys import ToyPart, toy_config, toy_scenes
from attnviz.training import loop

def slow(config, *_):
    part = ToyPart(config)
    part.before_batch = lambda number: time.sleep(0.2 if number > 4 else 0)
    return part

loop.make_part = slow
loop.open_scenes = lambda *_: (toy_scenes(), None)
loop.train(toy_config(steps=40), esc10=".", out=sys.argv[1], cache=".")
"""


def started(script: str, run: Path) -> subprocess.Popen:
    paths = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-c", script, str(run)], env=environment, stderr=subprocess.PIPE)


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_process(toy_training, tmp_path):
    run = tmp_path / "killed"
    process = started(SCRIPT, run)
    try:
        wait_for(lambda: len(list_checkpoints(run)) == 2, process)
    finally:
        process.kill()
        process.communicate()
    # What a kill amid writing leaves behind.
    left_by_the_dead(run / "checkpoints" / "step-0000009", "partial").mkdir()
    with (run / "metrics.csv").open("a") as file:
        file.write("9,1.0,lo")
    config = toy_config(steps=40)
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", threads)))
    try:
        toy_training(config, "killed", resume=True)
        toy_training(config, "whole")
    finally:
        torch.set_num_threads(threads)
    same_outcome(run, tmp_path / "whole")
    assert not list((run / "checkpoints").glob(".*"))


def left_by_the_dead(target, role):
    """The temporary path of a process that has ended."""
    path = temporary_path(target, role)
    return path.with_name(path.name.replace(f"-{os.getpid()}-", "-999999999-"))


def test_later_samples_and_leftovers_are_removed(tmp_path):
    for name in ("samples/step-0000002", "samples/step-0000004", "checkpoints/step-0000002"):
        (tmp_path / name).mkdir(parents=True)
    left_by_the_dead(tmp_path / "samples" / "step-0000005", "partial").mkdir()
    left_by_the_dead(tmp_path / "checkpoints" / "step-0000001", "removed").mkdir()
    tidy_run(tmp_path, 3)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
    assert left == ["checkpoints/step-0000002", "samples/step-0000002"]


def test_finished_run_is_left_as_it_is(toy_training, tmp_path):
    toy_training(toy_config())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert toy_training(toy_config(), resume=True) == tmp_path / "run" / "model"
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_export_that_failed_is_made_up_for(toy_training, tmp_path, monkeypatch):
    toy_training(toy_config(), "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "export", lambda self: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            toy_training(toy_config())
    toy_training(toy_config(), resume=True)
    same_outcome(tmp_path / "run", tmp_path / "whole")


def test_resume_begins_where_there_is_nothing(toy_training, tmp_path):
    toy_training(toy_config(), "whole")
    toy_training(toy_config(), resume=True)
    same_outcome(tmp_path / "run", tmp_path / "whole")


def test_resume_before_the_first_checkpoint(toy_training, tmp_path):
    with pytest.raises(Stopped):
        toy_training(toy_config(log_every=1), before_batch=stop_at(2))
    with pytest.raises(TrainingError, match="seed was 5 and is 6"):
        toy_training(toy_config(log_every=1, seed=6), resume=True)
    toy_training(toy_config(log_every=1), resume=True)
    assert [row[0] for row in metrics(tmp_path / "run") if row[1] == "loss"] == list("1234567")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"learning_rate": 0.06, "steps": 8}, "learning_rate was 0.05 and is 0.06; steps was 7 and is 8"),
        ({"data": {"folds": [2], "scenes": 10}}, r"data.folds was \[1\] and is \[2\]"),
        ({"model": {"width": 3}}, "model.width was not set and is 3"),
        (
            {"data": {"folds": [1], "scenes": 10, "composer": {"events": [1, 2]}}},
            "data.composer.events was not set",
        ),
    ],
)
def test_another_configuration_is_refused(toy_training, tmp_path, changes, told):
    toy_training(toy_config())
    with pytest.raises(TrainingError, match=told):
        toy_training(toy_config(**changes), resume=True)
    assert weights(tmp_path / "run")


def test_how_often_things_are_written_may_change(toy_training, tmp_path):
    toy_training(toy_config(), "whole")
    with pytest.raises(Stopped):
        toy_training(toy_config(), before_batch=stop_at(5))
    toy_training(toy_config(checkpoint_every=1, sample_every=1, log_every=1, keep_checkpoints=1), resume=True)
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-0000007"]
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "run")[name])


def test_other_scenes_are_refused(toy_training, monkeypatch, tmp_path):
    toy_training(toy_config())
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(TrainingError, match=r"validation_scenes was '' and is 'toy'"):
        toy_training(toy_config(), held_out=True, resume=True)


def test_another_number_of_processes_is_refused(toy_training, tmp_path):
    with pytest.raises(Stopped):
        toy_training(toy_config(), before_batch=stop_at(5))
    path = list_checkpoints(tmp_path / "run")[-1] / "state.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(TrainingError, match="processes was 2 and is 1"):
        toy_training(toy_config(), resume=True)


def test_another_auto_encoder_is_refused(toy_training, tmp_path):
    with pytest.raises(Stopped):
        toy_training(toy_config(), before_batch=stop_at(5))
    path = list_checkpoints(tmp_path / "run")[-1] / "state.json"
    text = path.read_text()
    assert '"frozen_parts": ""' in text  # a toy has none
    path.write_text(text.replace('"frozen_parts": ""', '"frozen_parts": "0a1b"'))
    with pytest.raises(TrainingError, match="frozen_parts was '0a1b' and is ''"):
        toy_training(toy_config(), resume=True)


def test_folders_that_are_taken(toy_training, tmp_path):
    toy_training(toy_config())
    with pytest.raises(OutputError, match="already contains a training; resume it"):
        toy_training(toy_config())
    with pytest.raises(TrainingError, match="exclude each other"):
        toy_training(toy_config(), resume=True, overwrite=True)
    toy_training(toy_config(seed=6), overwrite=True)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError):
            toy_training(toy_config(), "model", **options)
    assert (model / "config.json").is_file()


def test_overwritten_only_when_all_is_ready(toy_training, tmp_path, monkeypatch):
    """A model that cannot be made must not cost the run that was there."""
    toy_training(toy_config())
    before = weights(tmp_path / "run")
    monkeypatch.setattr(loop, "make_part", None)

    def refuse(*_):
        raise TrainingError("no such setting")

    monkeypatch.setattr(loop, "make_part", refuse)
    with pytest.raises(TrainingError, match="no such setting"):
        loop.train(toy_config(seed=6), esc10=tmp_path, out=tmp_path / "run", cache=tmp_path, overwrite=True)
    assert torch.equal(before["0.weight"], weights(tmp_path / "run")["0.weight"])
