"""Record the cross-attention of a U-Net: a tracing processor in every layer, or in none."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from attnviz.capture.changes import Changes
from attnviz.capture.conditioning import Branches, Conditioning
from attnviz.capture.editing import AttentionEdit, AttentionEditor, EditedRow
from attnviz.capture.layers import (
    AttentionLayer,
    CrossAttentionLayer,
    block_strides,
    find_self_attention,
    find_self_sites,
    find_sites,
    refuse_rewritten,
)
from attnviz.capture.measures import MEASURES, Block, Measure
from attnviz.capture.processor import TracingProcessor, is_traced
from attnviz.capture.recording import Recording
from attnviz.capture.site import AttentionSite, SeenAttention, is_tapped
from attnviz.capture.store import AttentionStore, CapturedLayer
from attnviz.errors import CaptureError
from attnviz.models.families import STABLE_DIFFUSION, Family

DEFAULT_MAX_BYTES = 2 * 2**30
"""Default byte budget of the store: 2 GiB."""

_DIMS = ("branch", "prompt", "image", "step", "head", "token", "row", "column")
_STORED_DIMS = ("step", "branch", "prompt", "image", "head", "row", "column", "token")


class AttentionRecorder(Changes):
    """Record the cross-attention of a running U-Net, without changing its output except for explicit edits.

    The recorder is a context manager. On entry it puts a tracing processor into every layer's slot or into none;
    on every kind of exit it restores the original processors.
    A step is a completed call of the U-Net; it is never inferred by counting layers.

    Parameters
    ----------
    unet : torch.nn.Module
        The denoiser.
    keep : collection of {"step", "head"}
        Axes that are kept instead of averaged.
    branch : {"conditional", "both"}
        Branches of classifier-free guidance that are kept.
    max_bytes : int
        Budget of the store, in bytes.
    edit : AttentionEdit, optional
        Changes to the attention of some rows. The edited attention is recorded. `begin` may give another.
    family : Family
        Says which modules attend to the text, and what their axes are.
    measure : Measure
        What is recorded of each module; by default, its probabilities.

    Raises
    ------
    CaptureError
        For an unknown axis or branch; on entry, if a layer cannot be observed faithfully or the U-Net is already
        being recorded.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        keep: Collection[Literal["step", "head"]] = (),
        branch: Literal["conditional", "both"] = "conditional",
        max_bytes: int = DEFAULT_MAX_BYTES,
        edit: AttentionEdit | None = None,
        family: Family = STABLE_DIFFUSION,
        measure: Measure = MEASURES["attention"],
    ) -> None:
        if unknown := set([keep] if isinstance(keep, str) else keep) - {"step", "head"}:
            raise CaptureError(
                f"keep={keep!r} contains {sorted(unknown)}; expected a tuple of 'step' and 'head', for example "
                "keep=('step',)."
            )
        if branch not in ("conditional", "both"):
            raise CaptureError(f"branch={branch!r} is unknown; expected 'conditional' or 'both'.")
        if branch == "both" and family.guidance == ("conditional",):
            raise CaptureError(
                f"branch='both' is not possible: {family.name} calls its denoiser once for each branch, and only "
                "the conditional calls are recorded."
            )
        if measure.self_attention and (edit is not None or not family.queries.has_freq):
            of = "attention that is edited" if edit is not None else f"{family.name}, whose layers have no rows"
            raise CaptureError(f"method={measure.name!r} is not defined for {of}. Use method='attention'.")
        if max_bytes <= 0:
            raise CaptureError(f"max_bytes={max_bytes} is not positive; expected a number of bytes above 0.")
        super().__init__()
        self.unet = unet
        self.keep = frozenset([keep] if isinstance(keep, str) else keep)
        self.branch = branch
        self.max_bytes = int(max_bytes)
        self.layers: list[CrossAttentionLayer] = []
        self.recordings: list[Recording] = []
        self.family = family
        self.measure = measure
        self._names = list(inspect.signature(type(unet).forward).parameters)[1:]
        self._edit = edit
        self._editor = AttentionEditor(edit)
        self._sites: list[AttentionSite] = []
        self._own: dict[str, SeenAttention] = {}
        self._current: Recording | None = None
        self._announced: Callable[[], int] = int
        self._branches: Branches | None = None
        self._timestep = 0.0
        self._keys = 0

    def _make(self) -> None:
        """Install a tracing processor in every cross-attention layer or in none."""
        if is_traced(self.unet) or any(map(is_tapped, self.unet.modules())):
            raise CaptureError(
                "This denoiser is being traced already. Leave the first `with trace(...)` block before entering "
                "another. Pipelines made with from_pipe share one."
            )
        self.layers = find_sites(self.unet, self.family)
        self_sites: list[AttentionLayer] = []
        if self._edit is not None:
            self_sites = find_self_sites(self.unet, self.family)
        elif self.measure.self_attention:
            self_sites = find_self_attention(self.unet)
        cross = self._joint_rows if self.family.queries.are_keys else self._cross_rows
        self._finally(self._let_go)
        self._hook(self.unet.register_forward_pre_hook, self._before_unet, with_kwargs=True)
        self._hook(self.unet.register_forward_hook, self._after_unet)
        for layer in self.layers:
            signs = self.family.signs(layer.attention)
            site = AttentionSite(layer, cross, self._record, signs=signs)
            if layer.transformer is not None:
                self._hook(layer.transformer.register_forward_pre_hook, site.before_block, with_kwargs=True)
            self._put_in(site)
        receive = self._note_own if self.measure.self_attention else None
        for other in self_sites:
            signs = self.family.signs(other.attention)
            self._put_in(AttentionSite(other, self._self_rows, receive, signs=signs))

    @property
    def signed(self) -> bool:
        """Whether attention is the difference of two probabilities in some layer."""
        return any(len(self.family.signs(layer.attention)) > 1 for layer in self.layers)

    def _put_in(self, site: AttentionSite) -> None:
        attention = site.layer.attention
        if hasattr(attention, "get_attention_scores"):
            self._replace(attention, "get_attention_scores", site.scores)
        if site.has_slot:
            self._finally(functools.partial(_put_back, attention, site.processor))
            attention.processor = site.processor
        else:
            self._replace(attention, "forward", site.forward)
        self._sites.append(site)

    def _cross_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.cross_rows(positions)

    def _self_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.self_rows(positions)

    def _joint_rows(self, positions: int) -> Sequence[EditedRow]:
        return self._editor.joint_rows(positions, keys=self._keys, first=self._keys)

    def begin(
        self,
        conditioning: Conditioning,
        announced: Callable[[], int],
        edit: AttentionEdit | None = None,
    ) -> Recording:
        """Start recording one pipeline call.

        Parameters
        ----------
        conditioning : Conditioning
            What the call is conditioned on.
        announced : callable returning int
            Called at the first denoiser call; returns the expected number of denoiser calls.
        edit : AttentionEdit, optional
            Edit of this call, instead of that of the recorder, which must have one.

        Raises
        ------
        CaptureError
            If the denoiser was compiled, or put under a cache, since tracing began.
        """
        self.end()
        refuse_rewritten(self.unet)
        self._editor = AttentionEditor(self._edit if edit is None else edit)
        self._current = Recording(conditioning)
        self._announced = announced
        self._known_states = None
        self.recordings.append(self._current)
        return self._current

    def end(self) -> None:
        """End the current recording, if any: the pipeline call is over.

        A denoiser call before the next `begin` raises an error, because its prompt is not known.
        """
        if self._current is not None:
            self._current.ended = True
            if self._current.store is not None:
                self._current.store.discard()
        self._current = self._known_states = None

    def captured(self, recording: Recording) -> Mapping[str, CapturedLayer]:
        """Return what was recorded, each layer on its grid.

        Returns
        -------
        mapping of str to CapturedLayer
            By layer name, in the order of the forward pass; empty if no denoiser call was completed. Each layer
            is made on access, so that memory never holds a second copy of all layers.
        """
        if recording.store is None or recording.store.calls == 0:
            return {}
        return _CapturedLayers(self.layers, functools.partial(self._on_its_grid, recording, recording.store))

    def _before_unet(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recording = self._current
        if recording is None:
            raise CaptureError(
                "The traced U-Net was called outside a call of the traced pipeline, so its prompt is not known. "
                "Call the pipeline object that was passed to trace()."
            )
        self._check_slots()
        sample, timestep, states = (
            kwargs[name] if name in kwargs else args[self._names.index(name)]
            for name in (self.family.latents, self.family.timestep, self.family.states)
        )
        self._keys = int(states.shape[1])
        if recording.store is None:
            recording.latent_size = self.family.latent_size(sample.shape)
            recording.expected_calls = self._announced()
            recording.store = AttentionStore(
                [layer.name for layer in self.layers],
                keep_steps="step" in self.keep,
                max_bytes=self.max_bytes,
                expected_calls=recording.expected_calls,
            )
        recording.store.discard()
        # At every call, because a callback may pass other embeddings or change them in place.
        self._branches = recording.conditioning.branches(states)
        if self._branches is None:
            self._editor.begin_call(None, recording.store.calls, recording.expected_calls)
            return
        if recording.store.calls >= recording.expected_calls:
            raise CaptureError(
                f"The U-Net was called more often than the {recording.expected_calls} times that the pipeline "
                "announced. Does another pipeline or a callback use the same U-Net?"
            )
        if self.branch == "both" and self._branches.unconditional is None:
            raise CaptureError(
                "branch='both' needs an unconditional branch, but this call has none: guidance_scale is 1 or "
                "below, or guidance is off for some steps. Raise guidance_scale, or use branch='conditional'."
            )
        self._timestep = float(torch.as_tensor(timestep).flatten()[0])
        self._editor.begin_call(self._branches, recording.store.calls, recording.expected_calls)

    def _after_unet(self, unet: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._current is not None and self._current.store is not None and self._branches is not None:
            self._current.store.commit()
            self._current.timesteps.append(self._timestep)

    def _record(self, site: AttentionSite, seen: SeenAttention) -> None:
        recording, branches, layer = self._current, self._branches, site.layer
        if recording is not None and recording.store is not None and branches is None:
            return  # a call of the unconditional branch alone
        if recording is None or recording.store is None or branches is None:
            raise CaptureError(f"{layer.path} was called outside its U-Net, so its step and prompt are not known.")
        batch, _, positions, _ = seen.call.query.shape
        if not self.family.queries.has_freq:
            seen, grid = self._columns(recording, seen)
        elif site.grid is None or site.grid[0] * site.grid[1] != positions:
            raise CaptureError(
                f"{layer.path} attends from {positions} positions, but the input of its block has the grid "
                f"{site.grid}. Positions were merged or dropped, so they do not lie on the spectrogram."
            )
        else:
            grid = site.grid
        if seen.call.key.shape[2] < self._keys:
            raise CaptureError(
                f"{layer.path} attends to {seen.call.key.shape[2]} keys, but the denoiser was called with "
                f"{self._keys}: it attends to something other than the text."
            )
        every = max(each.stop for each in (branches.conditional, branches.unconditional) if each is not None)
        if batch != every:
            raise CaptureError(
                f"{layer.path} attends with {batch} rows, but the U-Net was called with {every}, so which of them "
                "are conditional is not known."
            )
        rows = slice(None) if self.branch == "both" else branches.conditional
        recording.grids[layer.name] = grid
        kept = _as_index(recording.conditioning.positions, seen.call.key.device)
        block = Block(layer, seen, self._own.pop(_block(layer), None))
        attention = self.measure.compute(block, rows, kept, "head" in self.keep)
        if recording.conditioning.draws > 1:
            attention = attention.unflatten(0, (-1, recording.conditioning.draws)).mean(dim=1)
        recording.store.add(layer.name, attention)

    def _note_own(self, site: AttentionSite, seen: SeenAttention) -> None:
        self._own[_block(site.layer)] = seen

    def _on_its_grid(
        self, recording: Recording, store: AttentionStore, layer: CrossAttentionLayer
    ) -> CapturedLayer:
        """Split rows into branch, prompt and image, and positions into rows and columns; order the axes."""
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
        if not self.family.queries.has_freq:
            absent.add("row")
        stored = [name for name in _STORED_DIMS if name not in absent]
        ordered = tuple(name for name in _DIMS if name not in absent)
        split = store.array(layer.name).reshape([sizes[name] for name in stored])
        if self.branch == "both" and self.family.guidance[0] == "conditional":
            split = np.flip(split, axis=stored.index("branch"))
        split = split.transpose([stored.index(name) for name in ordered])
        if not self.family.queries.has_freq:
            return CapturedLayer(
                np.ascontiguousarray(split), ordered, layer.heads, layer.path, (1, self.family.patch(self.unet))
            )
        stride = next(
            stride for path, stride in block_strides(self.unet).items() if layer.path.startswith(f"{path}.")
        )
        if self.family.queries.order == ("time", "freq"):
            split, stride = split.swapaxes(-1, -2), (stride[1], stride[0])
        if self.family.queries.first_row == "lowest":
            split = np.flip(split, axis=-2)
        return CapturedLayer(np.ascontiguousarray(split), ordered, layer.heads, layer.path, stride)

    def _columns(self, recording: Recording, seen: SeenAttention) -> tuple[SeenAttention, tuple[int, int]]:
        positions = seen.call.query.shape[2]
        columns = self.family.columns(self.unet, recording.latent_size[1], positions, self._keys)
        return seen.columns(columns), (1, columns.stop - columns.start)

    def _check_slots(self) -> None:
        for site in self._sites:
            there = site.there
            if there is not None:
                raise CaptureError(
                    f"The processor of {site.layer.path} was replaced after trace() began, by "
                    f"{type(there).__name__}. Set processors, attention slicing and IP-Adapters before tracing."
                )

    def _let_go(self) -> None:
        """Release the tensors of an unfinished call."""
        self.end()
        self._sites.clear()
        self._own.clear()
        self._branches = None


class _CapturedLayers(Mapping[str, CapturedLayer]):
    """Captured layers by name, each made on access."""

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


def _block(layer: AttentionLayer) -> str:
    """Return the path of the transformer block of a layer."""
    return layer.path.rpartition(".")[0]


def _put_back(attention: Attention, processor: TracingProcessor) -> None:
    if attention.processor is processor:
        attention.processor = processor.inner


def _as_index(positions: Collection[int], device: torch.device) -> torch.Tensor | slice:
    """Return contiguous positions as a slice, which indexes without copying; otherwise a tensor."""
    first, last = min(positions), max(positions)
    if last - first + 1 == len(positions):
        return slice(first, last + 1)
    return torch.tensor(sorted(positions), dtype=torch.int64, device=device)
