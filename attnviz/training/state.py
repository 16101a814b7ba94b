"""The state of a training that changes from step to step, which checkpoints store and resuming restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from attnviz.training.config import TrainingConfig
from attnviz.training.metrics import Means
from attnviz.training.part import Part, Player


@dataclass(frozen=True)
class Learner:
    """A player with its optimiser and scheduler, prepared by accelerate."""

    player: Player
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the optimised parameters in the optimizer's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.scheduler.get_last_lr()[0])


class TrainingState:
    """Weights, optimizers, schedulers and averages: everything needed for exact resuming.

    The states of random generators are not included, since every step seeds them.

    Parameters
    ----------
    part : Part
        Part to train.
    config : TrainingConfig
        Configuration of the training.
    accelerator : Accelerator
        Device, precision and processes.
    """

    def __init__(self, part: Part, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.accelerator, self.shipped = accelerator, part.shipped
        part.shipped.to(accelerator.device)
        self.learners = [_learner(player, config, accelerator) for player in part.players]
        self.means = Means()
        # Frozen parameters need no average.
        self._averaged = [parameter for parameter in part.shipped.parameters() if parameter.requires_grad]
        self._ema = None
        if config.ema_decay:
            self._ema = EMAModel(
                self._averaged, decay=config.ema_decay, use_ema_warmup=True, power=0.75, foreach=True
            )
            self._ema.to(accelerator.device)

    def average(self) -> None:
        """Update the moving average with the current weights."""
        if self._ema is not None:
            self._ema.step(self._averaged)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights of the shipped module inside the block, for inference."""
        modes = {module: module.training for module in self.shipped.modules()}
        self.shipped.eval()
        if self._ema is not None:
            self._ema.store(self._averaged)
        try:
            if self._ema is not None:
                self._ema.copy_to(self._averaged)
            with torch.no_grad():
                yield
        finally:
            if self._ema is not None:
                self._ema.restore(self._averaged)
            for module, training in modes.items():
                module.training = training

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the state by unique names, in contiguous layout."""
        found = self._weights()
        for k, learner in enumerate(self.learners):
            for i, moments in learner.optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{k}.{i}.{name}": tensor for name, tensor in moments.items()}
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def numbers(self) -> dict[str, Any]:
        """Return the rest of the state as JSON-serialisable values; all processes call this together."""
        scaler = self.accelerator.scaler
        return {
            "schedulers": [learner.scheduler.state_dict() for learner in self.learners],
            "scaler": scaler.state_dict() if scaler is not None else None,
            "averaged_steps": self._ema.optimization_step if self._ema is not None else 0,
            "means": self.means.shared(self.accelerator),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Restore the state returned by :meth:`tensors` and :meth:`numbers`.

        Raises
        ------
        LookupError, TypeError, ValueError
            If the state belongs to other modules.
        """
        with torch.no_grad():
            for name, tensor in self._weights().items():
                _copy(tensors[name], tensor, name)
        for k, (learner, schedule) in enumerate(zip(self.learners, numbers["schedulers"], strict=True)):
            moments = _nested(tensors, f"optimizer.{k}.", learner.parameters)
            groups = learner.optimizer.state_dict()["param_groups"]
            learner.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            learner.scheduler.load_state_dict(schedule)
            for group, rate in zip(learner.optimizer.param_groups, learner.scheduler.get_last_lr(), strict=True):
                group["lr"] = rate
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(numbers["scaler"])
        if self._ema is not None:
            self._ema.optimization_step = int(numbers["averaged_steps"])
        self.means.restore(numbers["means"])

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return trained parameters, persistent buffers and averages, without duplicates."""
        found: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        for k, learner in enumerate(self.learners):
            module = self.accelerator.unwrap_model(learner.player)
            kept = module.state_dict().keys()
            trained = [item for item in module.named_parameters() if item[1].requires_grad]
            for name, tensor in (*trained, *module.named_buffers()):
                if name in kept and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[f"player.{k}.{name}"] = tensor
        shadows = self._ema.shadow_params if self._ema is not None else []
        return found | {f"average.{i}": tensor for i, tensor in enumerate(shadows)}


def _learner(player: Player, config: TrainingConfig, accelerator: Accelerator) -> Learner:
    player.train()  # models read from files are in inference mode
    optimizer = torch.optim.AdamW(
        player.trained(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    scheduler = get_scheduler(
        config.schedule,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.steps,
        num_cycles=config.cycles,
    )
    return Learner(*accelerator.prepare(player, optimizer, scheduler))


def _nested(
    tensors: Mapping[str, torch.Tensor], prefix: str, parameters: list[torch.nn.Parameter]
) -> dict[int, dict[str, torch.Tensor]]:
    """Return an optimizer's tensors by parameter and name, in the memory layout of the parameter.

    A step with another layout (channels last) may round differently.
    """
    found: dict[int, dict[str, torch.Tensor]] = {}
    for full in (name for name in tensors if name.startswith(prefix)):
        number, name = full.removeprefix(prefix).split(".")
        moment = tensors[full]
        if name != "step":  # a counter, which is not on the parameter's device
            moment = torch.empty_like(parameters[int(number)], requires_grad=False)
            _copy(tensors[full], moment, full)
        found.setdefault(int(number), {})[name] = moment
    return found


def _copy(source: torch.Tensor, target: torch.Tensor, name: str) -> None:
    if source.shape != target.shape:  # copy_ would broadcast
        raise ValueError(f"{name} has shape {tuple(source.shape)} instead of {tuple(target.shape)}")
    target.copy_(source)
