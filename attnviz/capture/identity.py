"""Digest what acts on a denoiser: its weights, the rest of its modules' state, and its inputs.

A list of known settings is never complete: a fused LoRA, FreeU, a control image or another tool's hook changes the
output of a model without appearing in its settings. Two runs belong to the same model if these digests agree:

weights
    Parameters and buffers as they act: of an adapter (LoRA), only what is active and not merged.
state
    Everything else in the modules: classes and attributes (FreeU's factors, a layer's number of heads), attention
    processors, and hooks or replaced ``forward`` methods with the values in their closures.
inputs
    Arguments of each call, except the latents and what is computed from them.

Digests depend on values, dtypes and shapes, not on memory layout, device or number of images.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import json
import types
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin
from torch import nn

from attnviz.capture import Changes, held_processor

_CHUNK = 1 << 16
_SAMPLE = 256
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_DEPTH = 8
# Attributes that torch sets on every module; parameters, buffers, children and hooks are handled separately.
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
# Bookkeeping of peft and accelerate. It acts only through the layers, which are described separately.
_NOTED = frozenset({"peft_config", "_hf_peft_config_loaded", "_old_forward"})
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Code that only observes or moves weights does not change the arithmetic.
_PASSIVE = ("attnviz.", "accelerate.")


def tensor_digest(tensor: torch.Tensor) -> str:
    """Digest a tensor's values, dtype and shape.

    Parameters
    ----------
    tensor : torch.Tensor
        On any device. Its sums are computed there; only about one number per 65 536 values is transferred.

    Returns
    -------
    str
        16 hexadecimal digits, the same on every device and in every memory layout.

    Notes
    -----
    The bits of each 65 536 values, read as integers, are multiplied by fixed odd numbers and summed modulo 2^64.
    The digest is the SHA-256 of the sums. This is a multilinear hash: two tensors collide with a probability of
    about 2^-63, unless they were constructed to collide.
    """
    if hasattr(tensor, "__tensor_flatten__"):  # a tensor composed of others, such as a quantized one
        names, made = tensor.__tensor_flatten__()
        inner = [tensor_digest(getattr(tensor, name)) for name in names]
        return _of_text(json.dumps([_name(type(tensor)), repr(made), inner]))
    tensor = tensor.detach()
    heading = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    bits = _bits(tensor if tensor.numel() > _SAMPLE else tensor.cpu())
    factors = _factors(bits.device)
    sums = []
    whole = len(bits) // _CHUNK * _CHUNK
    for rows in bits[:whole].view(-1, _CHUNK).split(16):  # 8 MiB of integers: the peak memory of a capture
        sums.append((rows.to(torch.int64) * factors).sum(dim=1))
    rest = bits[whole:].to(torch.int64)
    sums.append((rest * factors[: len(rest)]).sum(dim=0, keepdim=True))
    return hashlib.sha256(heading + torch.cat(sums).cpu().numpy().tobytes()).hexdigest()[:16]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's values in logical order, flat, as integers of the same size."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    flat = tensor.contiguous().flatten()
    return flat.view(torch.uint8 if flat.dtype == torch.bool else _INTEGERS[flat.element_size()])


class Digests:
    """Digests of tensors, each computed once while the tensor is alive and unchanged.

    A change is detected by the tensor's memory address, its version (which torch increments on in-place changes),
    and about 256 of its values: a change through ``.data``, as when peft fuses a LoRA, alters only the values. A
    change of a few values through ``.data`` may be missed.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], tuple[weakref.ref[torch.Tensor], State, list[str]]] = {}

    def __call__(self, tensor: torch.Tensor) -> str:
        """Return the `tensor_digest` of the whole tensor."""
        return self._digested(tensor, by_row=False)[0]

    def rows(self, tensor: torch.Tensor) -> list[str]:
        """Return the digest of each row along the first axis; equal neighbours count once."""
        return self._digested(tensor, by_row=tensor.ndim > 0)

    def _digested(self, tensor: torch.Tensor, *, by_row: bool) -> list[str]:
        key, state = (id(tensor), by_row), _state(tensor)
        known = self._known.get(key)
        if known is not None and known[0]() is tensor and known[1] == state:
            return known[2]
        if (
            by_row and tensor.ndim == 1
        ):  # numbers, such as one timestep per image: a digest of each would take seconds
            digests = [tensor_digest(torch.unique_consecutive(tensor))]
        else:
            digests = [tensor_digest(row) for row in tensor] if by_row else [tensor_digest(tensor)]
        digests = [digest for digest, _ in itertools.groupby(digests)]
        self._known[key] = (weakref.ref(tensor, lambda _: self._known.pop(key, None)), state, digests)
        return digests


# One for all runs of the process: weights that did not change are digested once, not once for every trace.
_DIGESTS = Digests()

State = tuple[int, int, bytes]
"""Memory address, version, and some values of a tensor."""


def _state(tensor: torch.Tensor) -> State:
    if hasattr(tensor, "__tensor_flatten__"):
        return 0, 0, tensor_digest(tensor).encode()
    version = -1 if tensor.is_inference() else tensor._version  # inference tensors have no version
    values = tensor.detach()
    dense = values.is_contiguous() or (
        values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    )
    if dense:  # in memory order, which needs no copy
        step = max(1, values.numel() // _SAMPLE)
        values = values.as_strided((len(range(0, values.numel(), step)),), (step,))
    return tensor.data_ptr(), version, _bits(values).cpu().numpy().tobytes()


def weights_digest(module: nn.Module, digests: Digests) -> str | None:
    """Digest the parameters and buffers of a module as they act, by name; return None if one cannot be read.

    Parameters
    ----------
    module : torch.nn.Module
        With or without adapters of peft (LoRA). An adapter that is disabled, inactive or merged into the base
        weights does not count, so loading and disabling a LoRA leaves the digest unchanged.
    digests : Digests
    """
    return named_digest(dict(_acting_tensors(module, "")), digests)


def named_digest(tensors: Mapping[str, torch.Tensor | None], digests: Digests) -> str | None:
    """Digest tensors by name, in any order; return None if one of them is None. See `weights_digest`."""
    lines = []
    for name, tensor in sorted(tensors.items()):
        if tensor is None:
            return None
        lines.append(f"{name} {digests(tensor)}\n")
    return _of_text("".join(lines))


def state_digest(module: nn.Module, digests: Digests) -> str:
    """Digest what affects a module's output besides its weights: classes, attributes, processors and hooks.

    Hooks and processors of attnviz, and hooks of accelerate that only move weights, are excluded. Global variables
    that a function reads, and the state of compiled extensions, are not seen.
    """
    described = [[path, *_described_module(each, digests)] for path, each in _acting_modules(module, "")]
    return _of_text(json.dumps(described))


def input_digest(value: Any, digests: Digests) -> str:
    """Digest the arguments of a module: tensors, numbers, text, and lists and mappings of them.

    Tensors are digested by row along the first axis, with equal neighbours counted once, so that several images of
    one prompt give the digest of one image.
    """
    return _of_text(json.dumps(_described_input(value, digests)))


def active_adapters(module: nn.Module) -> dict[str, list[float]]:
    """Map each active, unmerged adapter (LoRA) to its scales over the layers."""
    scales: dict[str, set[float]] = {}
    for layer in module.modules():
        for name, scale in _acting_adapters(layer).items():
            scales.setdefault(name, set()).add(scale)
    return {name: sorted(values) for name, values in sorted(scales.items())}


class Acting(Changes):
    """Observe what acts on some modules over the calls of successive runs; a context manager.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        Modules called during a run: the denoiser, and those that condition it (a ControlNet, an adapter).
    weighed : mapping of str to torch.nn.Module
        Other modules that affect the result; only their weights are digested.
    latents : str
        Argument of the modules that holds the latents, which is no setting.

    Notes
    -----
    Weights and state are digested at the first call and at the end of a run. If they differ, both are recorded.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], weighed: Mapping[str, nn.Module], *, latents: str = "sample"
    ) -> None:
        super().__init__()
        self._derived = {latents, "return_dict"}
        if "controlnet" in modules:
            self._derived |= _OF_CONTROLNET
        self._modules, self._weighed = dict(modules), dict(weighed)
        self._digests = _DIGESTS
        self._paused = False
        self.begin()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not observe calls inside the block, which are made beside those of the run."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def begin(self) -> None:
        """Start another run."""
        self._inputs: dict[str, list[str]] = {}
        self._first: dict[str, dict[str, str | None]] = {}

    def _make(self) -> None:
        """Register a hook before and after each module."""
        for name, module in self._modules.items():
            before = functools.partial(self._before, name, _names_of(module))
            self._hook(module.register_forward_pre_hook, before, with_kwargs=True)
            self._hook(module.register_forward_hook, functools.partial(self._after, name))

    @property
    def record(self) -> dict[str, dict[str, Any]]:
        """``weights``, ``state`` and ``inputs``: one digest for each module called since `begin`, by name."""
        last = {name: self._acting(name) for name in self._first}
        both: dict[str, dict[str, Any]] = {
            kind: {
                name: each[kind] if each[kind] == last[name][kind] else [each[kind], last[name][kind]]
                for name, each in self._first.items()
            }
            for kind in ("weights", "state")
        }
        for name, module in self._weighed.items():
            both["weights"][name] = weights_digest(module, self._digests)
        return {**both, "inputs": {name: _of_text(" ".join(calls)) for name, calls in self._inputs.items()}}

    def _before(
        self, name: str, names: list[str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._paused:
            return
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        acting = {key: value for key, value in given.items() if key not in self._derived and value is not None}
        self._inputs.setdefault(name, []).append(input_digest(acting, self._digests))

    def _after(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # After the call, because offloading has then moved the weights to the fast device.
        if name not in self._first and not self._paused:
            self._first[name] = self._acting(name)

    def _acting(self, name: str) -> dict[str, str | None]:
        module = self._modules[name]
        return {
            "weights": weights_digest(module, self._digests),
            "state": state_digest(module, self._digests),
        }


# What is computed from the latents depends on the seed, as they do.
_OF_CONTROLNET = {"down_block_additional_residuals", "mid_block_additional_residual"}


def _names_of(module: nn.Module) -> list[str]:
    return list(inspect.signature(module.forward).parameters)


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    """Return fixed pseudo-random odd 64-bit numbers (splitmix64 of their index)."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, _CHUNK + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(z.view(np.int64)).to(device)


# Adapters ---------------------------------------------------------------------------------------------


def _is_adapted(module: Any) -> bool:
    """Whether a module is a peft layer that wraps another: a LoRA or similar."""
    return hasattr(module, "base_layer") and hasattr(module, "adapter_layer_names")


def _acting_adapters(module: Any) -> dict[str, float]:
    """Map the adapters of a layer that act in its forward pass to their scales."""
    if not _is_adapted(module) or module.disable_adapters or module.merged_adapters:
        return {}  # once an adapter is merged, peft's layers run only the base layer
    scaling: Mapping[str, float] = getattr(module, "scaling", {})
    there = {name for kind in module.adapter_layer_names for name in getattr(module, kind, {})}
    return {name: float(scaling.get(name, 1.0)) for name in module.active_adapters if name in there}


def _acting_children(module: Any, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children that act; the base layer of an adapter has the adapter's path."""
    lead = f"{path}." if path else ""
    if not _is_adapted(module):
        yield from ((f"{lead}{name}", child) for name, child in module.named_children())
        return
    acting = _acting_adapters(module)
    for kind in module.adapter_layer_names:
        own = getattr(module, kind, None)
        for name in acting:
            if isinstance(own, nn.ModuleDict) and name in own:
                yield f"{lead}{kind}.{name}", own[name]


def _acting_modules(module: Any, path: str) -> Iterator[tuple[str, nn.Module]]:
    module = held_processor(module)
    if _is_adapted(module):
        yield from _acting_modules(module.base_layer, path)
        if not _acting_adapters(module):
            return
    yield path, module
    for place, child in _acting_children(module, path):
        yield from _acting_modules(child, place)


def _acting_tensors(module: nn.Module, path: str) -> Iterator[tuple[str, torch.Tensor | None]]:
    each: Any
    for place, each in _acting_modules(module, path):
        for name, tensor in (*each._parameters.items(), *each._buffers.items()):
            if tensor is not None:
                yield f"{place}.{name}".removeprefix("."), _in_memory(each, name, tensor)
        if _is_adapted(each):  # adapters that are tensors instead of modules (lora_embedding_A)
            for kind in each.adapter_layer_names:
                own = getattr(each, kind, None)
                for name in _acting_adapters(each):
                    if isinstance(own, nn.ParameterDict) and name in own:
                        yield f"{place}.{kind}.{name}", own[name]


def _in_memory(module: nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a readable tensor: accelerate's copy if sequential offloading left a placeholder, or None."""
    if not tensor.is_meta:
        return tensor
    offloaded = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    return None if offloaded is None else offloaded[name]


# Descriptions -----------------------------------------------------------------------------------------


def _described_module(module: nn.Module, digests: Digests) -> list[Any]:
    if _is_adapted(module):
        return [_name(type(module)), sorted(_acting_adapters(module).items())]
    own = {name: held_processor(value) for name, value in vars(module).items() if name not in _OF_TORCH | _NOTED}
    if isinstance(module, ConfigMixin):
        own["_internal_dict"] = _settings(module.config)
    hooks = [list(vars(module)[kind].values()) for kind in _HOOKS]
    return [
        _name(type(module)),
        # FreeU, for example, leaves None behind when it is disabled.
        [
            [name, _described(value, digests, ())]
            for name, value in sorted(own.items())
            if value is not None and not _passive(value)
        ],
        [[_described(hook, digests, ()) for hook in each if not _passive(hook)] for each in hooks],
    ]


def _passive(value: object) -> bool:
    """Whether a hook, processor or method only observes, or moves weights."""
    value = getattr(value, "__func__", value)
    value = value.func if isinstance(value, functools.partial) else value
    kind = value if isinstance(value, types.FunctionType) else type(value)
    return kind.__module__.startswith(_PASSIVE)


def _name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"


def _described(value: Any, digests: Digests, inside: tuple[int, ...]) -> Any:
    """Convert a value to JSON values; `inside` lists the ids of the enclosing objects."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | complex | bytes | np.generic | Enum | torch.dtype | torch.Size):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return "placeholder" if value.is_meta else digests(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, type | types.BuiltinFunctionType):
        return _name(value)
    if id(value) in inside or len(inside) >= _DEPTH:
        return _name(type(value))

    def go_on(each: Any) -> Any:
        return _described(each, digests, (*inside, id(value)))

    if isinstance(value, Mapping):
        return [[str(key), go_on(item)] for key, item in sorted(value.items(), key=_by_key)]
    if isinstance(value, list | tuple):
        return [go_on(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(go_on(each)) for each in value)
    if isinstance(value, functools.partial):
        return [go_on(value.func), go_on(value.args), go_on(value.keywords)]
    if isinstance(value, types.MethodType):
        return [go_on(value.__func__), go_on(value.__self__)]
    if isinstance(value, types.FunctionType):
        code = value.__code__
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [_name(value), code.co_code.hex(), go_on(code.co_consts), go_on(value.__defaults__), go_on(cells)]
    if isinstance(value, types.CodeType):
        return [value.co_name, value.co_code.hex(), go_on(value.co_consts)]
    if isinstance(value, nn.Module):  # its state could lead back here, if one of its methods is hooked
        return [_name(type(value)), weights_digest(value, digests)]
    if isinstance(value, ConfigMixin):  # pipelines and schedulers: other attributes change with every step
        return [_name(type(value)), go_on(_settings(value.config))]
    if isinstance(value, torch.device | torch.Generator | weakref.ref) or _passive(value):
        return _name(type(value))
    return [_name(type(value)), go_on(getattr(value, "__dict__", {}))]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the entries on its origin."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _by_key(item: tuple[Any, Any]) -> str:
    return str(item[0])


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable without a value
        return False
    return True


def _described_input(value: Any, digests: Digests) -> Any:
    if isinstance(value, torch.Tensor):
        return digests.rows(value)
    if isinstance(value, Mapping):
        return [[str(key), _described_input(item, digests)] for key, item in sorted(value.items(), key=_by_key)]
    if isinstance(value, list | tuple):
        return [_described_input(each, digests) for each in value]
    return _described(value, digests, ())
