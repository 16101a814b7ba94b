"""Gradients over the text embeddings, by captum: integrated gradients and GradientSHAP, for all cells at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnviz.arguments import public, whole_number
from attnviz.attribution.batches import in_batches
from attnviz.attribution.method import Asked, Attribution, Event, checked_size, event_mask, of_prediction
from attnviz.attribution.texts import Texts, energy
from attnviz.capture import CapturedLayer
from attnviz.diffusion.noising import Predict, View
from attnviz.errors import CaptureError, CompletenessWarning, warn

TargetName = Literal["guidance", "prediction"]
TARGETS = ("guidance", "prediction")
COMPLETE = 0.01
"""Largest error of completeness, relative to the change of the target, at which no further steps are taken."""
_MOST_STEPS = 256


class Path:
    """The energy of the prediction in each cell, as a function of gates between a baseline and the caption.

    A gate of 0 gives the baseline's embedding at its keys, and a gate of 1 the caption's: the straight line
    between the two. There is one gate for each kept key, and one for all others. The derivative by a gate is the
    gradient by the embeddings at its keys, times their difference from the baseline, summed over the width: what
    integrated gradients sum up.

    Parameters
    ----------
    texts : Texts
    positions : sequence of int
        Kept keys.
    baselines : torch.Tensor, shape (baselines, keys, width)
    samples, timestep
        Input of the denoiser.
    target : {"guidance", "prediction"}
    size : int
        Rows of a batch.

    Notes
    -----
    Reverse mode gives the gradient of one cell in one pass; forward mode gives the derivative of all cells by one
    gate. There are many more cells than gates, so derivatives are computed in forward mode.
    """

    def __init__(
        self,
        texts: Texts,
        positions: Sequence[int],
        baselines: torch.Tensor,
        samples: torch.Tensor,
        timestep: int,
        *,
        target: TargetName,
        size: int,
    ) -> None:
        keys = texts.caption.shape[1]
        self.members = torch.zeros(len(positions) + 1, keys, device=texts.caption.device)
        self.members[range(len(positions)), list(positions)] = 1.0
        self.members[-1] = 1.0 - self.members[:-1].sum(0)
        self._texts, self._baselines, self._size = texts, baselines.float(), size
        self._samples, self._timestep = samples, timestep
        guided = target == "guidance"
        self._reference = texts.predict(samples, timestep, texts.null)[None] if guided else samples.new_zeros(1)

    @property
    def gates(self) -> int:
        """Number of gates."""
        return len(self.members)

    def __call__(self, gates: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        """Return the target in each cell, (rows, cells rows, cells columns).

        Parameters
        ----------
        gates : torch.Tensor, shape (rows, gates, 1, 1)
        of : torch.Tensor of int, shape (rows,)
            Baseline of each row.
        """
        return in_batches(lambda some: self._energy(self._states(gates[some], of[some])), len(gates), self._rows)

    def derivatives(
        self,
        forward_fn: Any,
        inputs: tuple[torch.Tensor, ...],
        target_ind: Any = None,
        additional_forward_args: Any = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return the derivative of every cell by every gate: captum's ``gradient_func``.

        Returns
        -------
        tuple of one torch.Tensor, shape (rows, gates, rows of cells, columns of cells)
        """
        gates, of = inputs[0].detach(), additional_forward_args[0]
        count = self.gates

        def compute(some: slice) -> torch.Tensor:
            pairs = torch.arange(len(gates) * count, device=gates.device)[some]
            row, gate = pairs // count, pairs % count
            with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
                primal = self._states(gates[row], of[row])
                tangent = self.members[gate][..., None] * (self._texts.caption - self._baselines[of[row]])
                found = self._energy(forward_ad.make_dual(primal, tangent))
                tangents = forward_ad.unpack_dual(found).tangent
            return torch.zeros_like(found) if tangents is None else tangents

        found = in_batches(compute, len(gates) * count, self._rows)
        return (found.unflatten(0, (len(gates), count)),)

    @property
    def _rows(self) -> int:
        return max(1, self._size // len(self._samples))

    def _states(self, gates: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        share = (gates.flatten(1).float() @ self.members)[..., None]
        start = self._baselines[of]
        return start + share * (self._texts.caption - start)

    def _energy(self, states: torch.Tensor) -> torch.Tensor:
        draws = len(self._samples)
        samples = self._samples.repeat(len(states), *[1] * (self._samples.ndim - 1))
        predictions = self._texts.predict(samples, self._timestep, states.repeat_interleave(draws, dim=0))
        return energy(predictions.unflatten(0, (-1, draws)) - self._reference)


@dataclass(frozen=True)
class Gradients(Attribution):
    """A method of captum over the text embeddings."""

    quantity: ClassVar[str] = "share of the energy of the prediction"
    signed: ClassVar[bool] = True

    target: TargetName = "guidance"
    event: Event | None = None
    internal_batch_size: int = 32

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid, or gradients of this precision are not to be trusted."""
        super().check(keep)
        check_target(self.target)
        checked_size(self.internal_batch_size)
        check_precision(self.pipe.unet, self.name)

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Attribute the energy of the prediction at each view to the kept keys."""
        texts = asked.texts
        baselines = self._baselines(texts)
        steps, errors, deltas, taken = [], [], [], []
        inside = torch.from_numpy(event_mask(self.event, asked, tuple(views[0][0].shape[-2:]), window))
        for samples, timestep in views:
            predict(samples, timestep)  # the call that provenance counts
            path = Path(
                texts,
                asked.conditioning.positions,
                baselines,
                samples,
                timestep,
                target=self.target,
                size=self.internal_batch_size,
            )
            found = self._attributed(path, len(baselines))
            steps.append(found.maps[:-1] * inside.to(found.maps))
            errors.append(found.error)
            deltas.append(found.delta)
            taken.append(found.steps)
        asked.record.update({"completeness_error": max(errors), "convergence_delta": deltas, "n_steps": taken})
        if max(errors) > COMPLETE and self.name == "integrated_gradients":
            warn(
                f"Integrated gradients are incomplete by {max(errors):.1%} of the target after {max(taken)} "
                f"steps; {COMPLETE:.0%} was wanted. Raise n_steps.",
                CompletenessWarning,
            )
        return of_prediction(asked, steps)

    def _baselines(self, texts: Texts) -> torch.Tensor:
        return texts.null

    @abstractmethod
    def _attributed(self, path: Path, baselines: int) -> _Attributed:
        """Attribute the target of a path to its gates."""


@dataclass(frozen=True)
class _Attributed:
    """Maps (gates, rows, columns), and how far their sum is from the change of the target.

    `error` is the sum over cells of the absolute differences, relative to that of the changes; `delta` is captum's
    own convergence delta, the difference of the sums over all cells.
    """

    maps: torch.Tensor
    error: float
    delta: float
    steps: int


@public
@dataclass(frozen=True)
class IntegratedGradients(Gradients):
    """Integrated gradients over the text embeddings, from the unconditional text to the caption, by captum.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    target : {"guidance", "prediction"}
        ``"guidance"``: the energy, in each cell, of the difference from the prediction without text.
        ``"prediction"``: the energy of the prediction.
    event : (float, float) or (float, float, float, float), optional
        Onset and offset in seconds, and lowest and highest frequency in Hz: the energy of the event's cells is
        attributed, and other cells are zero.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.
    n_steps : int
        Steps of the integral at first. They are doubled until the error of completeness is at most 1 %, up to 256.

    Warns
    -----
    CompletenessWarning
        If the error of completeness is above 1 % at the most steps.

    Notes
    -----
    In each cell, the maps of all keys sum to the change of the target between the two texts, up to the error of
    completeness, which `provenance` has beside captum's convergence delta. Padding has its own share, in the maps
    only with ``tokens="all"``.

    References: Sundararajan et al., Axiomatic Attribution for Deep Networks (arXiv 1703.01365); Kokhlikyan et al.,
    Captum (arXiv 2009.07896). Difference from captum's use: derivatives by the text are computed in forward mode,
    so that one pass gives all cells.
    """

    name: ClassVar[str] = "integrated_gradients"

    n_steps: int = 8

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid."""
        super().check(keep)
        whole_number("n_steps", self.n_steps, most=_MOST_STEPS, error=CaptureError)

    def _attributed(self, path: Path, baselines: int) -> _Attributed:
        from captum.attr import IntegratedGradients as Captum

        captum = Captum(path)
        captum.gradient_func = path.derivatives
        start, end = (torch.full((1, path.gates, 1, 1), value, device=path.members.device) for value in (0.0, 1.0))
        of = torch.zeros(1, dtype=torch.long, device=start.device)
        change = (path(end, of) - path(start, of))[0]
        steps = self.n_steps
        while True:
            maps = captum.attribute(end, start, additional_forward_args=(of,), n_steps=steps)
            error = completeness_error(maps[0], change)
            if error <= COMPLETE or 2 * steps > _MOST_STEPS:
                delta = captum.compute_convergence_delta(maps, start, end, additional_forward_args=(of,))
                return _Attributed(maps[0], error, float(delta), steps)
            steps *= 2


@public
@dataclass(frozen=True)
class GradientShap(Gradients):
    """Expected gradients over the text embeddings, at random points between baselines and the caption.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    target, event, internal_batch_size
        As for `IntegratedGradients`.
    baselines : sequence of str
        Texts of the baseline distribution, beside the unconditional text, for example captions of other clips.
    n_samples : int
        Random points for each baseline.
    stdevs : float
        Standard deviation of the noise on the gates.
    sample_seed : int
        Seed of the points and the noise.

    Notes
    -----
    The error of completeness is that of an average over random points; `provenance` has it.

    References: Lundberg & Lee, A Unified Approach to Interpreting Model Predictions (arXiv 1705.07874); Erion et
    al., Improving Performance of Deep Learning Models with Axiomatic Attribution Priors and Expected Gradients
    (arXiv 1906.10670). Difference from captum's use: each baseline has the same number of points.
    """

    name: ClassVar[str] = "gradient_shap"

    baselines: Sequence[str] = ()
    n_samples: int = 16
    stdevs: float = 0.0
    sample_seed: int = 0

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid."""
        super().check(keep)
        whole_number("n_samples", self.n_samples, most=1 << 16, error=CaptureError)
        whole_number("sample_seed", self.sample_seed, least=0, most=2**32 - 1, error=CaptureError)
        if isinstance(self.baselines, str) or not all(
            isinstance(text, str) and text.strip() for text in self.baselines
        ):
            raise CaptureError(f"baselines={self.baselines!r} is not a sequence of texts.")
        if not 0 <= float(self.stdevs) < np.inf:
            raise CaptureError(f"stdevs={self.stdevs!r} is not a standard deviation: a number of at least 0.")

    def _baselines(self, texts: Texts) -> torch.Tensor:
        return texts.encoded(["", *self.baselines])

    def _attributed(self, path: Path, baselines: int) -> _Attributed:
        from captum.attr import GradientShap as Captum

        captum = Captum(path)
        captum.gradient_func = path.derivatives
        start, end = (
            torch.full((baselines, path.gates, 1, 1), value, device=path.members.device) for value in (0.0, 1.0)
        )
        of = torch.arange(baselines, device=start.device)
        with _seeded(self.sample_seed):
            maps = captum.attribute(
                end, start[:1], n_samples=self.n_samples, stdevs=float(self.stdevs), additional_forward_args=(of,)
            )
        change = (path(end, of) - path(start, of)).mean(0)
        mean = maps.mean(0)
        delta = float(mean.sum() - change.sum())
        return _Attributed(mean, completeness_error(mean, change), delta, self.n_samples)


def completeness_error(maps: torch.Tensor, change: torch.Tensor) -> float:
    """Return how far maps are from summing to the change of the target in each cell.

    Parameters
    ----------
    maps : torch.Tensor, shape (gates, rows, columns)
    change : torch.Tensor, shape (rows, columns)

    Returns
    -------
    float
        Sum over cells of the absolute differences, divided by that of the absolute changes: errors in different
        cells do not cancel.
    """
    return float((maps.sum(0) - change).abs().sum() / change.abs().sum().clamp(min=1e-30))


def check_target(target: Any) -> None:
    """Raise unless a target is known.

    Raises
    ------
    CaptureError
        With the known ones.
    """
    if target not in TARGETS:
        raise CaptureError(
            f"target={target!r} is unknown; expected 'guidance' (the energy of the difference from the prediction "
            "without text) or 'prediction' (the energy of the prediction)."
        )


def check_precision(denoiser: Any, method: str) -> None:
    """Raise unless a denoiser computes in float32: small gradients vanish in half precision.

    Raises
    ------
    CaptureError
        With the precision.
    """
    device = next(denoiser.parameters()).device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else denoiser.dtype
    if dtype not in (torch.float32, torch.float64):
        raise CaptureError(
            f"method={method!r} needs gradients, which are not accurate in {str(dtype).removeprefix('torch.')}. "
            "Load the model with torch_dtype=torch.float32, and leave autocast off; or use method='leave_one_out' "
            "or 'shapley', which need none."
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random states of torch and NumPy, which captum uses, and restore them."""
    kept = np.random.get_state()  # noqa: NPY002 (captum draws from the global state)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(kept)  # noqa: NPY002
