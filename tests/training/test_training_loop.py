"""What a step is, what a batch is, and what ends a training."""

from __future__ import annotations

import csv
import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from training.training_toys import ToyPart, toy_config, toy_scenes

from attnviz.errors import AttnVizWarning, OutputError, TrainingError
from attnviz.training import checkpoints, loop, setup
from attnviz.training.batches import Batches, step_seed
from attnviz.training.checkpoints import how_to_go_on, list_checkpoints
from attnviz.training.metrics import MetricsLog


def exported(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "model" / "toy.safetensors")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What a step is


def plain_torch(config, average: bool) -> dict[str, torch.Tensor]:
    """The toy's training written out, without accelerate and diffusers' average."""
    torch.manual_seed(config.seed)
    part = ToyPart(config, noisy=False)
    parameters = list(part.shipped.parameters())
    optimizer = torch.optim.AdamW(
        parameters, config.learning_rate, (config.beta1, config.beta2), weight_decay=config.weight_decay
    )
    schedule = get_scheduler(
        config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
    )
    batches = Batches(part, toy_scenes(), config.batch_size, config.seed)
    shadows = [parameter.detach().clone() for parameter in parameters]
    for step in range(1, config.steps + 1):
        optimizer.zero_grad()
        losses = [
            part.players[0](batches[(step - 1) * config.gradient_accumulation + i])[0]
            for i in range(config.gradient_accumulation)
        ]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        # diffusers' warm-up: 1 - (1 + step)^-power, from the second step on.
        decay = min(config.ema_decay, 1 - (1 + (step - 1)) ** -0.75) if step > 1 else 0.0
        for shadow, parameter in zip(shadows, parameters, strict=True):
            shadow.lerp_(parameter.detach(), 1 - decay)
    names = [name for name, _ in part.shipped.named_parameters()]
    return dict(zip(names, shadows if average else parameters, strict=True))


@pytest.mark.parametrize("ema_decay", [0.0, 0.6])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_training_is_plain_adamw_and_its_average_is_exported(toy_training, tmp_path, ema_decay, accumulation):
    config = toy_config(ema_decay=ema_decay, gradient_accumulation=accumulation)
    toy_training(config, noisy=False)
    expected = plain_torch(config, average=ema_decay > 0)
    for name, tensor in exported(tmp_path / "run").items():
        torch.testing.assert_close(tensor, expected[name].detach(), rtol=1e-5, atol=1e-6)
    if ema_decay:
        raw = plain_torch(config, average=False)
        assert not any(torch.allclose(raw[name], expected[name], atol=1e-4) for name in raw)


def test_weights_in_training_are_not_the_average(toy_training, tmp_path):
    """Averaged for samples and export only, and back again."""
    with_samples, without = toy_config(sample_every=1), toy_config(sample_every=100)
    toy_training(with_samples, "with", held_out=True)
    toy_training(without, "without", held_out=True)
    for name, tensor in exported(tmp_path / "with").items():
        assert torch.equal(tensor, exported(tmp_path / "without")[name])
    shipped = toy_training.parts[0].shipped
    assert not torch.allclose(shipped[0].weight, exported(tmp_path / "with")["0.weight"])
    assert shipped.training


@pytest.mark.parametrize("accumulation", [2, 3])
def test_accumulated_batches_are_one_large_batch(toy_training, tmp_path, accumulation):
    toy_training(toy_config(batch_size=6), "large", noisy=False)
    toy_training(
        toy_config(batch_size=6 // accumulation, gradient_accumulation=accumulation), "small", noisy=False
    )
    for name, tensor in exported(tmp_path / "large").items():
        torch.testing.assert_close(tensor, exported(tmp_path / "small")[name], rtol=1e-4, atol=1e-5)


def test_player_that_touches_anothers_weights(toy_training, monkeypatch, tmp_path):
    """An adversary's weights take part in its opponent's loss; their gradients from there are not kept."""

    class Pair(ToyPart):
        def __init__(self, config):
            super().__init__(config, noisy=False)
            self.other = torch.nn.Parameter(torch.ones(()))
            first, part = self.players[0], self

            class Second(type(first)):
                def __init__(self):
                    torch.nn.Module.__init__(self)
                    self.value = part.other

                def forward(self, batch):
                    loss = self.value.square()
                    return loss, {"second": loss}

            def forward(batch):
                loss, values = type(first).forward(first, batch)
                return loss + 1000 * part.other, values

            first.forward = forward
            first.trained = lambda: list(first.net.parameters())
            self.players = [first, Second()]

    parts = []
    monkeypatch.setattr(loop, "make_part", lambda config, *_: parts.append(Pair(config)) or parts[-1])
    monkeypatch.setattr(loop, "open_scenes", lambda *_: (toy_scenes(), None))
    config = toy_config(steps=1, learning_rate=0.1, schedule="constant", warmup_steps=0, weight_decay=0.0)
    loop.train(config, esc10=tmp_path, out=tmp_path / "run", cache=tmp_path)
    assert parts[0].other.grad.item() == pytest.approx(1.0)  # of x^2 at 1: 2, shortened to 1; not 1002
    assert (tmp_path / "run" / "metrics.csv").read_text().count(",second,") == 1


# What a batch is


def test_every_scene_once_an_epoch(toy_training):
    toy_training(toy_config(steps=10, batch_size=4))  # 40 items: four epochs of ten scenes
    seen = [index for batch in toy_training.parts[0].seen for index in batch]
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize(("processes", "size"), [(2, 5), (5, 1), (2, 2)])
def test_processes_share_an_epoch(processes, size):
    scenes, part = toy_scenes(), ToyPart(toy_config())
    side_by_side = [Batches(part, scenes, size, 3, processes, process) for process in range(processes)]
    alone = Batches(part, scenes, processes * size, 3)
    for number in range(7):
        together = [batches.indices(number) for batches in side_by_side]
        assert np.array_equal(np.concatenate(together), alone.indices(number))
        if (number + 1) * processes * size <= len(scenes):
            assert len(np.unique(np.concatenate(together))) == processes * size


def test_batch_larger_than_the_epoch():
    assert sorted(Batches(ToyPart(toy_config()), toy_scenes(3), 9, 0).indices(0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_draws_differ_by_batch_process_step_and_seed():
    scenes, part = toy_scenes(), ToyPart(toy_config())
    drawn = {
        float(Batches(part, scenes, 2, seed, 2, process)[number]["noise"][0, 0, 0, 0])
        for seed in (0, 1)
        for process in (0, 1)
        for number in range(4)
    }
    assert len(drawn) == 16
    seeds = {step_seed(seed, step, process) for seed in (0, 1) for step in range(9) for process in (0, 1)}
    assert len(seeds) == 36


# What ends a training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number(toy_training, tmp_path, value):
    def poison(number):
        if number == 5:
            toy_training.parts[-1].shipped[2].bias.data.fill_(value)

    with pytest.raises(TrainingError, match=r"at step 5.*learning_rate 0.05.*at step 4; resume"):
        toy_training(toy_config(), before_batch=poison)
    assert [path.name[-1] for path in list_checkpoints(tmp_path / "run")] == ["2", "4"]
    state = safetensors.torch.load_file(list_checkpoints(tmp_path / "run")[-1] / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    toy_training(toy_config(), resume=True)


def test_gradient_that_is_no_number_is_not_saved(toy_training, tmp_path, monkeypatch):
    """The loss of step 4 is finite, its gradient is not: the checkpoint of that step would hold NaN."""

    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * float("nan")

    def poison(number):
        if number == 4:
            toy_training.parts[-1].shipped[2].register_forward_hook(lambda module, inputs, out: Root.apply(out))

    with pytest.raises(TrainingError, match="gradient of listener is nan at step 4"):
        toy_training(toy_config(), before_batch=poison)
    assert [path.name[-1] for path in list_checkpoints(tmp_path / "run")] == ["2"]


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_for_tensors(*_args, **_options):
    raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ((checkpoints.safetensors.torch, "save_file"), full_for_tensors),
        ((checkpoints.safetensors.torch, "save_file"), full),
        ((checkpoints, "write_config"), full),
        ((checkpoints, "_write_json"), full),
        ((ToyPart, "sample"), full),
        ((ToyPart, "export"), full_for_tensors),
        ((MetricsLog, "add"), None),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else getattr(value, "__name__", "no space"),
)
def test_full_disk_keeps_the_last_checkpoint(toy_training, tmp_path, monkeypatch, place, failure):
    config = toy_config(keep_checkpoints=1, log_every=1)
    toy_training(config, "whole", held_out=True)
    run = tmp_path / "run"

    def fill(number):
        if number != 6:
            return
        fill.before = snapshot(list_checkpoints(run)[-1])
        if failure is not None:
            monkeypatch.setattr(*place, failure)
        else:
            (run / "metrics.csv").unlink()
            (run / "metrics.csv").mkdir()  # cannot be opened to be written

    with pytest.raises(OutputError, match="Cannot write|cannot be written"):
        toy_training(config, before_batch=fill, held_out=True)
    newest = list_checkpoints(run)[-1]
    if place[1] != "export":  # by then all checkpoints are there
        assert newest.name == "step-0000004"
        assert snapshot(newest) == fill.before
    assert not list(run.glob("*/.*"))
    assert not (run / "model").exists()
    monkeypatch.undo()
    if failure is None:
        (run / "metrics.csv").rmdir()
    toy_training(config, resume=True, held_out=True)
    assert torch.equal(exported(run)["0.weight"], exported(tmp_path / "whole")["0.weight"])


@pytest.mark.parametrize("function", ["save_file", "write_config"])
def test_interrupted_while_saving(toy_training, tmp_path, monkeypatch, function):
    run = tmp_path / "run"

    def interrupt(*_):
        raise KeyboardInterrupt

    def arm(number):
        if number == 6:
            place = checkpoints.safetensors.torch if function == "save_file" else checkpoints
            monkeypatch.setattr(place, function, interrupt)

    with pytest.raises(KeyboardInterrupt):
        toy_training(toy_config(keep_checkpoints=1), before_batch=arm)
    assert [path.name for path in list_checkpoints(run)] == ["step-0000004"]
    assert not list((run / "checkpoints").glob(".*"))
    assert how_to_go_on(run) == f"The last checkpoint is at step 4; resume {run} to continue from there."


def spoil(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(bytes(range(256)) * 9)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "missing"])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_damaged_checkpoint(toy_training, tmp_path, name, how):
    config = toy_config(steps=6)
    toy_training(config, "whole")

    def stop(number):
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_training(config, before_batch=stop)
    newest = list_checkpoints(tmp_path / "run")[-1]
    spoil(newest / name, how)
    with pytest.raises(TrainingError, match=r"step-0000004 is damaged.*Remove.*continues from step-0000002"):
        toy_training(config, resume=True)
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    toy_training(config, resume=True)
    assert torch.equal(exported(tmp_path / "run")["0.weight"], exported(tmp_path / "whole")["0.weight"])


@pytest.mark.parametrize(
    "content", ["null", "[]", "{}", '{"circumstances": 3}', '{"circumstances": {}, "state": 3}']
)
def test_checkpoint_of_other_content(toy_training, tmp_path, content):
    toy_training(toy_config())
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    (list_checkpoints(tmp_path / "run")[-1] / "state.json").write_text(content)
    with pytest.raises(TrainingError, match="damaged|cannot be resumed"):
        toy_training(toy_config(), resume=True)


def test_checkpoint_of_other_modules(toy_training, tmp_path):
    toy_training(toy_config())
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    path = list_checkpoints(tmp_path / "run")[-1] / "state.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = "player.0.net.0.bias"
    safetensors.torch.save_file({**tensors, name: tensors[name][:1].clone()}, path)  # would be broadcast
    with pytest.raises(TrainingError, match=r"player.0.net.0.bias has shape \(1,\) instead of \(8,\)"):
        toy_training(toy_config(), resume=True)


def test_nothing_in_a_checkpoint_is_pickled(toy_training, tmp_path):
    toy_training(toy_config())
    kept = {path.name for path in list_checkpoints(tmp_path / "run")[-1].iterdir()}
    assert kept == {"config.json", "state.json", "state.safetensors"}


# What is logged


def test_metrics(toy_training, tmp_path):
    toy_training(toy_config(log_every=7, sample_every=7), "once", held_out=True)
    toy_training(toy_config(log_every=1), "each")
    with (tmp_path / "once" / "metrics.csv").open() as file:
        once = {row["name"]: row for row in csv.DictReader(file)}
    with (tmp_path / "each" / "metrics.csv").open() as file:
        each = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert set(once) == {"loss", "learning_rate", "validation_weight"}
    assert float(once["loss"]["value"]) == pytest.approx(np.mean(each), rel=1e-4)
    assert {row["step"] for row in once.values()} == {"7"}


def test_log_goes_on_at_its_seconds_and_drops_what_is_cut_off(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,seconds,name,value\n1,10.0,loss,0.5\n2,20.0,loss,0.4\n3,30.0,loss,0.3\nx,1,2,3\n2,21.5,lo"
    )
    MetricsLog(path, 2).add(3, {"loss": 0.25})
    lines = path.read_text().splitlines()
    assert lines[:3] == ["step,seconds,name,value", "1,10.0,loss,0.5", "2,20.0,loss,0.4"]
    assert lines[3] == "3,20.0,loss,0.25"
    MetricsLog(path)
    assert path.read_text() == "step,seconds,name,value\n"


# accelerate


def test_precision_that_is_not_to_be_had(toy_training, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("fp16 is to be had here")
    with pytest.raises(TrainingError, match="mixed_precision 'fp16' is not available"):
        toy_training(toy_config(mixed_precision="fp16"))
    assert not (tmp_path / "run").exists()


def test_other_setup_of_accelerate_is_refused(monkeypatch):
    from accelerate.utils import DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(TrainingError, match="DEEPSPEED"):
        setup.make_accelerator(toy_config())


def test_accumulation_of_the_environment_is_left_out(toy_training, tmp_path, monkeypatch):
    """accelerate launch sets it; it would divide the losses once more."""
    toy_training(toy_config(), "plain", noisy=False)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    toy_training(toy_config(), "set", noisy=False)
    assert torch.equal(exported(tmp_path / "plain")["0.weight"], exported(tmp_path / "set")["0.weight"])


@pytest.mark.parametrize("main", [True, False])
def test_warnings_come_from_the_main_process(main):
    class Process:
        is_main_process = main

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with setup.told_once(Process()):
            warnings.warn("three recordings were skipped", AttnVizWarning, stacklevel=1)
    assert len(caught) == main


# Several processes

SCRIPT = """
import sys
from training.training_toys import ToyPart, toy_config, toy_scenes
from attnviz.training import loop

loop.make_part = lambda config, *_: ToyPart(config, noisy=False)
loop.open_scenes = lambda *_: (toy_scenes(), toy_scenes())
loop.train(toy_config(batch_size=2, gradient_accumulation=2), esc10=".", out=sys.argv[1], cache=".")
"""


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(toy_training, run_script, tmp_path):
    run_script(SCRIPT, tmp_path / "two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])
    # Batches 0 and 1 of two processes are, side by side, batch 0 of one; and so on.
    toy_training(toy_config(batch_size=4, gradient_accumulation=2), "one", noisy=False, held_out=True)
    for name, tensor in exported(tmp_path / "one").items():
        torch.testing.assert_close(tensor, exported(tmp_path / "two")[name], rtol=1e-4, atol=1e-6)
    rows = [list(csv.reader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")]
    assert [row[::2] for row in rows[0]] == [row[::2] for row in rows[1]]  # written by one process alone
    values = [[float(row[3]) for row in found[1:]] for found in rows]
    assert values[0] == pytest.approx(values[1], rel=1e-3)
    (tmp_path / "two" / "model").rename(tmp_path / "elsewhere")
    config = toy_config(batch_size=2, gradient_accumulation=2)
    with pytest.raises(TrainingError, match="processes was 2 and is 1"):
        toy_training(config, "two", noisy=False, held_out=True, resume=True)
