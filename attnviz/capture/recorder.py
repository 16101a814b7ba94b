"""Recording a U-Net's cross-attention: our processors in every layer of it, or in none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from attnviz.capture.changes import Changes
from attnviz.capture.conditioning import Branches, Conditioning
from attnviz.capture.editing import AttentionEdit, AttentionEditor
from attnviz.capture.layers import (
    CrossAttentionLayer,
    block_strides,
    find_cross_attention,
    find_self_attention,
)
from attnviz.capture.probabilities import reduced
from attnviz.capture.processor import TracingProcessor, is_traced
from attnviz.capture.recording import Recording
from attnviz.capture.site import AttentionSite, SeenAttention
from attnviz.capture.store import AttentionStore, CapturedLayer
from attnviz.errors import CaptureError

DEFAULT_MAX_BYTES = 2 * 2**30
"""Byte budget of the store where none is stated: 2 GiB."""

_DIMS = ("branch", "prompt", "image", "step", "head", "token", "row", "column")
_STORED_DIMS = ("step", "branch", "prompt", "image", "head", "row", "column", "token")


class AttentionRecorder(Changes):
    """Records the cross-attention of a U-Net while it works, changing nothing it computes that is not edited.

    Used as a context manager. A processor of ours goes into every layer's slot or into none, and on every kind of
    exit each slot gets back the object that was there.
    A step is a call of the U-Net seen to its end; it is never inferred from counting layers.

    Parameters
    ----------
    unet : torch.nn.Module
        The denoiser.
    keep : collection of {"step", "head"}
        Axes kept instead of being averaged.
    branch : {"conditional", "both"}
        Which branch of classifier-free guidance is kept.
    max_bytes : int
        Budget of the store, in bytes.
    edit : AttentionEdit, optional
        What is changed in the attention of some rows. Their attention is recorded as it is in effect.

    Raises
    ------
    CaptureError
        On an unknown axis or branch; on entering, where a layer cannot be observed faithfully or the
        U-Net is being recorded already.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        keep: Collection[Literal["step", "head"]] = (),
        branch: Literal["conditional", "both"] = "conditional",
        max_bytes: int = DEFAULT_MAX_BYTES,
        edit: AttentionEdit | None = None,
    ) -> None:
        if unknown := set([keep] if isinstance(keep, str) else keep) - {"step", "head"}:
            raise CaptureError(
                f"keep={keep!r} names {sorted(unknown)}; a tuple of 'step' and 'head' is expected, "
                "for example keep=('step',)."
            )
        if branch not in ("conditional", "both"):
            raise CaptureError(f"branch={branch!r} is unknown; it is 'conditional' or 'both'.")
        if max_bytes <= 0:
            raise CaptureError(f"max_bytes={max_bytes} leaves no room; it is a positive number of bytes.")
        super().__init__()
        self.unet = unet
        self.keep = frozenset([keep] if isinstance(keep, str) else keep)
        self.branch = branch
        self.max_bytes = int(max_bytes)
        self.layers: list[CrossAttentionLayer] = []
        self.recordings: list[Recording] = []
        self._editor = AttentionEditor(edit)
        self._sites: list[AttentionSite] = []
        self._current: Recording | None = None
        self._announced: Callable[[], int] = int
        self._branches: Branches | None = None
        self._timestep = 0.0

    def _make(self) -> None:
        """Put our processors in: into every cross-attention layer or into none."""
        if is_traced(self.unet):
            raise CaptureError(
                "This U-Net is being traced already. Leave the first `with trace(...)` block before "
                "entering another; pipelines made with from_pipe share one U-Net."
            )
        self.layers = find_cross_attention(self.unet)
        edited_too = find_self_attention(self.unet) if self._editor.active else []
        self._finally(self._let_go)
        self._hook(self.unet.register_forward_pre_hook, self._before_unet, with_kwargs=True)
        self._hook(self.unet.register_forward_hook, self._after_unet)
        for layer in self.layers:
            site = AttentionSite(layer, self._editor.cross_rows, self._record)
            self._hook(layer.transformer.register_forward_pre_hook, site.before_block, with_kwargs=True)
            self._put_in(site)
        for other in edited_too:
            self._put_in(AttentionSite(other, self._editor.self_rows, None))

    def _put_in(self, site: AttentionSite) -> None:
        attention = site.layer.attention
        self._replace(attention, "get_attention_scores", site.scores)
        self._finally(functools.partial(_put_back, attention, site.processor))
        attention.processor = site.processor
        self._sites.append(site)

    def begin(self, conditioning: Conditioning, announced: Callable[[], int]) -> Recording:
        """Start the recording of one pipeline call.

        Parameters
        ----------
        conditioning : Conditioning
            What the call is conditioned on.
        announced : callable returning int
            Asked at the first denoiser call how many there will be.
        """
        self.end()
        self._current = Recording(conditioning)
        self._announced = announced
        self._known_states = None
        self.recordings.append(self._current)
        return self._current

    def end(self) -> None:
        """End the recording under way, if there is one: the pipeline call is over.

        A denoiser call that comes before the next `begin` is refused, for its prompt is not known.
        """
        if self._current is not None:
            self._current.ended = True
            if self._current.store is not None:
                self._current.store.discard()
        self._current = self._known_states = None

    def captured(self, recording: Recording) -> Mapping[str, CapturedLayer]:
        """Hand out what was recorded, each layer on its own grid.

        Returns
        -------
        mapping of str to CapturedLayer
            By layer name, in the order the signal passes them; empty where no denoiser call was seen to
            its end. Each layer is made when it is looked up, so that there is never a second copy of all.
        """
        if recording.store is None or recording.store.calls == 0:
            return {}
        return _CapturedLayers(self.layers, functools.partial(self._on_its_grid, recording, recording.store))

    def _before_unet(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recording = self._current
        if recording is None:
            raise CaptureError(
                "The traced U-Net was called outside a call of the traced pipeline, so its prompt is not "
                "known. Call the pipeline object that was given to trace()."
            )
        self._check_slots()
        sample, timestep, states = (
            kwargs[name] if name in kwargs else args[index]
            for index, name in enumerate(("sample", "timestep", "encoder_hidden_states"))
        )
        if recording.store is None:
            recording.latent_size = (int(sample.shape[-2]), int(sample.shape[-1]))
            recording.expected_calls = self._announced()
            recording.store = AttentionStore(
                [layer.name for layer in self.layers],
                keep_steps="step" in self.keep,
                max_bytes=self.max_bytes,
                expected_calls=recording.expected_calls,
            )
        recording.store.discard()
        if recording.store.calls >= recording.expected_calls:
            raise CaptureError(
                f"The U-Net was called more often than the {recording.expected_calls} times the pipeline "
                "announced. Is another pipeline or a callback using the same U-Net?"
            )
        # At every call: a callback may hand over other embeddings, or change them in place.
        self._branches = recording.conditioning.branches(states)
        if self.branch == "both" and self._branches.unconditional is None:
            raise CaptureError(
                "branch='both' needs an unconditional branch, and this call has none: guidance_scale is "
                "1 or below, or guidance is off for some steps. Raise guidance_scale, or use branch='conditional'."
            )
        self._timestep = float(torch.as_tensor(timestep).flatten()[0])
        self._editor.begin_call(self._branches, recording.store.calls, recording.expected_calls)

    def _after_unet(self, unet: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._current is not None and self._current.store is not None:
            self._current.store.commit()
            self._current.timesteps.append(self._timestep)

    def _record(self, site: AttentionSite, seen: SeenAttention) -> None:
        recording, branches, layer = self._current, self._branches, site.layer
        if recording is None or recording.store is None or branches is None:
            raise CaptureError(f"{layer.path} was called outside its U-Net, so its step and prompt are not known.")
        batch, _, positions, _ = seen.call.query.shape
        if site.grid is None or site.grid[0] * site.grid[1] != positions:
            raise CaptureError(
                f"{layer.path} attends from {positions} positions, and its block's input has the grid "
                f"{site.grid}: positions were merged or dropped, so they do not lie on the spectrogram."
            )
        if batch != branches.conditional.stop:
            raise CaptureError(
                f"{layer.path} attends with {batch} rows, and the U-Net was called with "
                f"{branches.conditional.stop}, so which of them are conditional is not known."
            )
        rows = slice(None) if self.branch == "both" else branches.conditional
        recording.grids[layer.name] = site.grid
        attention = reduced(
            seen.chunks(rows),
            positions=_as_index(recording.conditioning.positions, seen.call.key.device),
            keep_heads="head" in self.keep,
        )
        if recording.conditioning.draws > 1:
            attention = attention.unflatten(0, (-1, recording.conditioning.draws)).mean(dim=1)
        recording.store.add(layer.name, attention)

    def _on_its_grid(
        self, recording: Recording, store: AttentionStore, layer: CrossAttentionLayer
    ) -> CapturedLayer:
        """Split rows into branch, prompt and image, positions into rows and columns; put axes in order."""
        conditioning = recording.conditioning
        rows, columns = recording.grids[layer.name]
        sizes = {
            "branch": 2,
            "prompt": conditioning.prompts,
            "image": conditioning.images_per_prompt,
            "step": len(recording.timesteps),
            "head": layer.heads,
            "row": rows,
            "column": columns,
            "token": len(conditioning.positions),
        }
        absent = {"step", "head"} - self.keep | ({"branch"} if self.branch != "both" else set())
        stored = [name for name in _STORED_DIMS if name not in absent]
        ordered = tuple(name for name in _DIMS if name not in absent)
        split = store.array(layer.name).reshape([sizes[name] for name in stored])
        split = split.transpose([stored.index(name) for name in ordered])
        stride = next(
            stride for path, stride in block_strides(self.unet).items() if layer.path.startswith(f"{path}.")
        )
        return CapturedLayer(np.ascontiguousarray(split), ordered, layer.heads, layer.path, stride)

    def _check_slots(self) -> None:
        for site in self._sites:
            there = site.layer.attention.processor
            if there is not site.processor:
                raise CaptureError(
                    f"The processor of {site.layer.path} was replaced after trace() began, by "
                    f"{type(there).__name__}. Set processors, attention slicing and IP-Adapters first, then trace."
                )

    def _let_go(self) -> None:
        """Let go of the tensors of a call that did not end."""
        self.end()
        self._sites.clear()
        self._branches = None


class _CapturedLayers(Mapping[str, CapturedLayer]):
    """Captured layers by name, each made when it is looked up."""

    def __init__(
        self, layers: Iterable[CrossAttentionLayer], make: Callable[[CrossAttentionLayer], CapturedLayer]
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._make = make

    def __getitem__(self, name: str) -> CapturedLayer:
        return self._make(self._layers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _put_back(attention: Attention, processor: TracingProcessor) -> None:
    if attention.processor is processor:
        attention.processor = processor.inner


def _as_index(positions: Collection[int], device: torch.device) -> torch.Tensor | slice:
    """Positions as a slice where they have no gap, which reads without copying."""
    first, last = min(positions), max(positions)
    if last - first + 1 == len(positions):
        return slice(first, last + 1)
    return torch.tensor(sorted(positions), dtype=torch.int64, device=device)
