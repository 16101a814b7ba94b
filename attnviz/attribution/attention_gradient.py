"""Gradient x attention: the positive part of what a target gains by more attention to a word, in each layer."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from attnviz.arguments import public
from attnviz.attribution.gradients import TargetName, check_precision, check_target
from attnviz.attribution.listener_target import listener_logit
from attnviz.attribution.looking import look
from attnviz.attribution.method import Asked, Attribution, Event, event_mask
from attnviz.attribution.texts import energy
from attnviz.capture import CapturedLayer, Measure, held
from attnviz.capture.layers import remedy
from attnviz.capture.measures import Block, Positions
from attnviz.capture.outputs import KernelOutputs
from attnviz.diffusion.noising import Predict, View
from attnviz.errors import CaptureError


@public
@dataclass(frozen=True)
class Gradient(Attribution):
    """Attention times its gradient, where positive, averaged over heads, in each layer.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    target : {"guidance", "prediction", "listener"}
        What is differentiated: the energy of the difference from the prediction without text, the energy of the
        prediction, or the bundled listener's logit, for the predicted clean clip, of the sounds that the caption
        names.
    event : (float, float) or (float, float, float, float), optional
        Onset and offset in seconds, and lowest and highest frequency in Hz: the energy of these cells, or the
        logit in these frames, only.

    Notes
    -----
    One backward pass a timestep, and a second forward pass, in which attention is recorded.

    References: Chefer et al., Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers (arXiv 2103.15679), equation 5. Difference from the original: a layer is read by itself; relevance
    is not propagated through the layers, which have different grids and convolutions between them.
    """

    name: ClassVar[str] = "gradient"
    quantity: ClassVar[str] = "attention x gradient, positive part"
    by_cell: ClassVar[bool] = False

    target: TargetName | Literal["listener"] = "guidance"
    event: Event | None = None

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid, or gradients of this precision are not to be trusted."""
        super().check(keep)
        if self.target != "listener":
            check_target(self.target)
        check_precision(self.pipe.unet, self.name)

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Differentiate the target at each view, then record attention times gradient."""
        gradients: dict[str, deque[torch.Tensor]] = {}
        for view in views:
            for path, gradient in self._gradients(asked, view, window).items():
                gradients.setdefault(path, deque()).append(gradient)
        compute = functools.partial(_positive, gradients)
        asked.recorder.measure = Measure("attention", self.quantity, compute)
        return look(asked.denoising, views, asked.recorder, predict)

    def _gradients(self, asked: Asked, view: View, window: int) -> dict[str, torch.Tensor]:
        """Return the gradient by the output of the kernel of each layer."""
        samples, timestep = view
        texts = asked.texts
        reference: torch.Tensor | float = 0.0
        if self.target == "guidance":
            reference = texts.predict(samples, timestep, texts.null)
        inside = torch.from_numpy(event_mask(self.event, asked, tuple(samples.shape[-2:]), window))
        tap = KernelOutputs(self.pipe.unet, asked.recorder.family)
        with held(tap), torch.enable_grad():
            states = texts.caption.detach().clone().requires_grad_()  # so that the values are in the graph
            predicted = texts.predict(samples, timestep, states) - reference
            outputs = dict(tap.outputs)
            if self.target == "listener":
                target = listener_logit(asked, view, predicted, self.event, window)
            else:
                cells = energy(predicted[None])[0]
                target = (cells * inside.to(cells)).sum()
            found = torch.autograd.grad(target, list(outputs.values()))
        if not all(bool(torch.isfinite(each).all()) for each in found):
            raise CaptureError(f"The gradient at timestep {timestep} is NaN or infinite.")
        return dict(zip(outputs, found, strict=True))


def _positive(
    gradients: Mapping[str, deque[torch.Tensor]], block: Block, rows: slice, positions: Positions, keep_heads: bool
) -> torch.Tensor:
    """Return the positive part of attention x gradient.

    The gradient by the probabilities P in ``P V`` is the gradient by the product, times the values V.
    """
    by_output = gradients[block.layer.path].popleft()[rows].float()
    value = block.seen.call.value
    if value is None:
        raise CaptureError(f"The values of {block.layer.path} are not seen. {remedy(block.layer)}")
    by_probability = by_output @ value[rows][:, :, positions].float().transpose(-1, -2)
    probabilities = torch.cat([chunk[..., positions] for _, chunk in block.seen.chunks(rows)], dim=1)
    positive = (probabilities * by_probability).clamp_(min=0)
    return positive if keep_heads else positive.mean(dim=1)
