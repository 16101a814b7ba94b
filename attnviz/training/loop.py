"""The training loop, which is common to all parts."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.utils import set_seed

from attnviz.errors import TrainingError
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_folder
from attnviz.training.batches import Batches, step_seed, to_device
from attnviz.training.checkpoints import (
    how_to_go_on,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from attnviz.training.config import TrainingConfig
from attnviz.training.metrics import MetricsLog, progress_bar
from attnviz.training.part import Batch, Part
from attnviz.training.parts import make_part
from attnviz.training.run_folder import MODEL, SAMPLES, begin_run, tidy_run
from attnviz.training.scene_store import SceneStore
from attnviz.training.setup import from_the_main, make_accelerator, open_scenes, told_once, where_to_begin
from attnviz.training.state import Learner, TrainingState


def train(
    config: TrainingConfig,
    *,
    esc10: str | os.PathLike[str],
    out: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train one part of the model.

    Parameters
    ----------
    config : TrainingConfig
        Configuration of the training.
    esc10 : path-like
        Folder of ESC-10 in its published layout.
    out : path-like
        Run folder, which receives ``config.json``, ``metrics.csv``, ``samples/``, ``checkpoints/`` and, at the
        end, ``model/``.
    cache : path-like
        Folder for composed scenes, which other trainings can reuse.
    resume : bool
        Continue from the newest checkpoint in `out`, or start a training if there is none.
    overwrite : bool
        Replace an existing run in `out`.

    Returns
    -------
    pathlib.Path
        ``out/model``, the trained part in the layout of a checkpoint.

    Raises
    ------
    AudioError, CheckpointError, TrainingError, OutputError
        If the data or settings are invalid, `out` contains another training, or the disk is full. The newest
        checkpoint remains valid.

    Notes
    -----
    The random draws of a step depend only on the seed and the step number. On the CPU of one machine, with the
    same number of threads, a resumed training therefore ends with bit-identical weights to an uninterrupted one.
    GPU arithmetic may differ between runs.

    Under ``accelerate launch`` with several processes, each process takes `batch_size` other scenes per step, the
    gradients are averaged, and the first process writes.
    """
    run = checked_path(out, "the run folder", TrainingError)
    cache = checked_path(cache, "the scene cache", TrainingError)
    accelerator = make_accelerator(config)
    checkpoint = from_the_main(accelerator, lambda: where_to_begin(run, config, resume, overwrite))
    if checkpoint is not None and step_of(checkpoint) == config.steps and (run / "model").is_dir():
        return run / "model"
    with accelerator.main_process_first(), told_once(accelerator):
        scenes, held_out = open_scenes(config.data, esc10, cache)
        set_seed(config.seed)
        part = make_part(config, scenes, cache, accelerator.device)
    training = _Training(config, run, part, scenes, held_out, TrainingState(part, config, accelerator))
    start = training.resume(checkpoint) if checkpoint is not None else training.begin(overwrite or resume)
    training.go(start)
    return training.export()


class _Training:
    """A training in progress: its steps and its output."""

    def __init__(
        self,
        config: TrainingConfig,
        run: Path,
        part: Part,
        scenes: SceneStore,
        held_out: SceneStore | None,
        state: TrainingState,
    ) -> None:
        self.config, self.run, self.part, self.state = config, run, part, state
        self.scenes, self.held_out = scenes, held_out
        self.accelerator = accelerator = state.accelerator
        self.batches = Batches(
            part, scenes, config.batch_size, config.seed, accelerator.num_processes, accelerator.process_index
        )
        self.circumstances = {
            "processes": accelerator.num_processes,
            "scenes": scenes.name,
            "validation_scenes": held_out.name if held_out is not None else "",
            "frozen_parts": part.frozen,
        }
        self.log: MetricsLog | None = None  # only in the main process

    def begin(self, overwrite: bool) -> int:
        """Create the run folder and return the number of completed steps."""
        if self.accelerator.is_main_process:
            begin_run(self.run, self.config, overwrite=overwrite)
            self.log = MetricsLog(self.run / "metrics.csv")
        return 0

    def resume(self, checkpoint: Path) -> int:
        """Restore a checkpoint and return the number of completed steps."""
        step = load_checkpoint(checkpoint, self.state, self.circumstances)
        if self.accelerator.is_main_process:
            tidy_run(self.run, step)
            self.log = MetricsLog(self.run / "metrics.csv", step)
        return step

    def go(self, done: int) -> None:
        """Run the remaining steps."""
        config = self.config
        with progress_bar(config.part, config.steps, shown=self.accelerator.is_main_process) as advance:
            advance(done, {})
            for step in range(done + 1, config.steps + 1):
                self._step(step)
                advance(step, self._log_means(step) if self._due(step, config.log_every) else {})
                if self._due(step, config.sample_every):
                    self._look(step)
                # Last, so that a checkpoint implies that all other output of its step exists.
                if self._due(step, config.checkpoint_every):
                    save_checkpoint(self.run, step, self.state, config, self.circumstances)

    def export(self) -> Path:
        """Write the trained part and return its folder."""
        model = self.run / "model"
        if self.accelerator.is_main_process:
            with (
                self.state.averaged(),
                whole_folder(model, overwrite=True, kind=MODEL) as temporary,
            ):
                self.part.export(temporary)
        self.accelerator.wait_for_everyone()
        return model

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.steps

    def _step(self, step: int) -> None:
        count = self.config.gradient_accumulation
        set_seed(step_seed(self.config.seed, step, self.accelerator.process_index))
        batches = [
            to_device(self.batches[number], self.accelerator.device)
            for number in range((step - 1) * count, step * count)
        ]
        for learner in self.state.learners:
            self._learn(learner, batches, step)
        self.state.average()

    def _learn(self, learner: Learner, batches: list[Batch], step: int) -> None:
        """Optimise one player for one step on the mean loss of some batches."""
        learner.optimizer.zero_grad()  # including gradients from another player's loss
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(learner.player):
                loss, values = learner.player(batch)
                self._expect_finite("loss", loss, step)
                self.accelerator.backward(loss / len(batches))
            self.state.means.add(values)
        norm = self.accelerator.clip_grad_norm_(learner.parameters, self.config.max_grad_norm)
        if self.accelerator.scaler is None:  # a gradient scaler expects overflows and skips such steps
            self._expect_finite("gradient", norm, step)
        learner.optimizer.step()
        learner.scheduler.step()

    def _expect_finite(self, what: str, value: torch.Tensor, step: int) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"the {what} of {self.config.part} is {value.item()} at step {step}. Is learning_rate "
                f"{self.config.learning_rate:g} too high? {how_to_go_on(self.run)}"
            )

    def _log_means(self, step: int) -> dict[str, float]:
        means = self.state.means.take(self.accelerator)
        if self.log is not None:
            self.log.add(step, {**means, "learning_rate": self.state.learners[0].rate})
        return means

    def _look(self, step: int) -> None:
        """Write samples, and compute validation metrics if there are validation scenes."""
        if self.log is None:
            return
        samples, device = self.run / "samples" / f"step-{step:07d}", self.accelerator.device
        with self.state.averaged():
            with whole_folder(samples, overwrite=True, kind=SAMPLES) as temporary:
                self.part.sample(self.held_out or self.scenes, temporary, device)
            measured = self.part.validate(self.held_out, device) if self.held_out is not None else {}
        self.log.add(step, {f"validation_{name}": value for name, value in measured.items()})
