"""All that a training changes from step to step: what a checkpoint holds and a resumed training begins with."""

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
    """A player with what optimises it, as accelerate has prepared them."""

    player: Player
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Parameters that are optimised, in the optimizer's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.scheduler.get_last_lr()[0])


class TrainingState:
    """Weights, optimizers, schedulers, averages: what exact resuming needs.

    No state of a random generator is among it: every step seeds them.

    Parameters
    ----------
    part : Part
        What is trained.
    config : TrainingConfig
        How.
    accelerator : Accelerator
        On which device, in which precision, in how many processes.
    """

    def __init__(self, part: Part, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.accelerator, self.shipped = accelerator, part.shipped
        part.shipped.to(accelerator.device)
        self.learners = [_learner(player, config, accelerator) for player in part.players]
        self.means = Means()
        # What is frozen is its own average.
        self._averaged = [parameter for parameter in part.shipped.parameters() if parameter.requires_grad]
        self._ema = None
        if config.ema_decay:
            self._ema = EMAModel(
                self._averaged, decay=config.ema_decay, use_ema_warmup=True, power=0.75, foreach=True
            )
            self._ema.to(accelerator.device)

    def average(self) -> None:
        """Take the weights of a step into the moving average."""
        if self._ema is not None:
            self._ema.step(self._averaged)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give what is shipped its averaged weights inside the block, for inference."""
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
        """Return every tensor of the state by a name of its own, laid out in rows."""
        found = self._weights()
        for k, learner in enumerate(self.learners):
            for i, moments in learner.optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{k}.{i}.{name}": tensor for name, tensor in moments.items()}
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def numbers(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON can hold it; to be called by all processes at once."""
        scaler = self.accelerator.scaler
        return {
            "schedulers": [learner.scheduler.state_dict() for learner in self.learners],
            "scaler": scaler.state_dict() if scaler is not None else None,
            "averaged_steps": self._ema.optimization_step if self._ema is not None else 0,
            "means": self.means.shared(self.accelerator),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Take on the state that :meth:`tensors` and :meth:`numbers` gave.

        Raises
        ------
        LookupError, TypeError, ValueError
            It is not of these modules.
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
        """Return what is trained, buffers that belong to a checkpoint, and the averages; nothing twice."""
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
    player.train()  # a model that was read from files comes in inference mode
    optimizer = torch.optim.AdamW(
        player.trained(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    scheduler = get_scheduler(
        config.schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
    )
    return Learner(*accelerator.prepare(player, optimizer, scheduler))


def _nested(
    tensors: Mapping[str, torch.Tensor], prefix: str, parameters: list[torch.nn.Parameter]
) -> dict[int, dict[str, torch.Tensor]]:
    """Return an optimizer's tensors by parameter and name, laid out in memory as the parameter is.

    A step on another layout (channels last) may round differently.
    """
    found: dict[int, dict[str, torch.Tensor]] = {}
    for full in (name for name in tensors if name.startswith(prefix)):
        number, name = full.removeprefix(prefix).split(".")
        moment = tensors[full]
        if name != "step":  # a counter, and not on the parameter's device
            moment = torch.empty_like(parameters[int(number)], requires_grad=False)
            _copy(tensors[full], moment, full)
        found.setdefault(int(number), {})[name] = moment
    return found


def _copy(source: torch.Tensor, target: torch.Tensor, name: str) -> None:
    if source.shape != target.shape:  # copying would broadcast
        raise ValueError(f"{name} is {tuple(source.shape)} and not {tuple(target.shape)}")
    target.copy_(source)
