"""The measured tools with a common interface: install, compute the maps, and describe the captured layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from torch import Tensor, nn

from overhead_parts import shims
from overhead_parts.hollow import layer_name

Grids = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tool:
    """A method of capturing.

    Attributes
    ----------
    name : str
        Name on the command line and in the results.
    installed : callable
        Function of the pipeline that returns a context manager in which the tool captures.
    finish : callable
        Function of the value of that context manager, called after its exit, that computes the maps.
    grids : callable
        Function of the same value and the denoiser that returns the grid of each layer as assumed by the tool,
        frequency before time.
    held_bytes : callable
        Function of the same value that returns the number of stored bytes.
    streams : bool
        Whether the tool stores only sums as large as the maps; otherwise, data stored before the maps exist are
        counted separately.
    distribution : str
        Name on the package index, or empty.
    peer : bool
        Whether it needs the environment of the other tools.
    extra : bool
        Whether it is another mode of a tool, which is measured only on the hollow model.
    shims : tuple of str
        Shims needed to run it.
    """

    name: str
    installed: Callable[[Any], AbstractContextManager[Any]]
    finish: Callable[[Any], Any] = lambda capture: None
    grids: Callable[[Any, nn.Module], Grids] = lambda capture, unet: {}
    held_bytes: Callable[[Any], int] = lambda capture: 0
    streams: bool = False
    distribution: str = ""
    peer: bool = False
    extra: bool = False
    shims: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Return the installed version."""
        if self.name.startswith("attnviz"):
            import attnviz

            return attnviz.__version__
        return metadata.version(self.distribution) if self.distribution else ""


@contextmanager
def _nothing(pipe: Any) -> Iterator[None]:
    yield


def _attnviz(pipe: Any, **options: Any) -> AbstractContextManager[Any]:
    import attnviz

    return attnviz.trace(pipe, **options)


def _attnviz_grids(trace: Any, unet: nn.Module) -> Grids:
    grids = {name: trace.maps[name].sizes for name in trace.maps.layers}
    return {
        layer_name(name): tuple(sizes[axis] for axis in ("freq", "time") if axis in sizes)
        for name, sizes in grids.items()
    }


def _attnviz_bytes(trace: Any) -> int:
    return sum(trace.maps[name].nbytes for name in trace.maps.layers)


@contextmanager
def _daam(pipe: Any) -> Iterator[Any]:
    shims.stand_in_for_spacy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # its torch.cuda.amp.autocast
        import daam

        with daam.trace(pipe) as capture:
            yield capture


def _daam_finish(capture: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        return capture.compute_global_heat_map()


def _daam_grids(capture: Any, unet: nn.Module) -> Grids:
    paths = {id(module): path for path, module in unet.named_modules()}
    hooked = {h.layer_idx: layer_name(paths[id(h.module)]) for h in capture.module if hasattr(h, "layer_idx")}
    maps = capture.all_heat_maps  # ((factor, layer, head), (tokens, rows, columns))
    return {hooked[layer]: tuple(heat.shape[-2:]) for (_, layer, _), heat in maps}


def _daam_bytes(capture: Any) -> int:
    return sum(heat.untyped_storage().nbytes() for _, heat in capture.all_heat_maps)


def _amd(pipe: Any, **options: Any) -> AbstractContextManager[Any]:
    from attention_map_diffusers import AttentionCapture

    return AttentionCapture(pipe, timesteps="all", **options)


def _amd_grids(capture: Any, unet: nn.Module) -> Grids:
    return {layer_name(r.layer_id): (r.q_shape.height, r.q_shape.width) for r in capture.records}


def _amd_bytes(capture: Any) -> int:
    tensors = [t for r in capture.records for t in (r.q, r.k, r.data) if isinstance(t, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


_AMD: dict[str, Any] = {
    "finish": lambda capture: capture.compute(),
    "grids": _amd_grids,
    "held_bytes": _amd_bytes,
    "distribution": "attention-map-diffusers",
    "peer": True,
}
_ATTNVIZ: dict[str, Any] = {
    "finish": lambda trace: trace.maps,
    "grids": _attnviz_grids,
    "held_bytes": _attnviz_bytes,
    "streams": True,
}
_ALL = (
    Tool("none", _nothing),
    Tool("attnviz", _attnviz, **_ATTNVIZ),
    Tool("attnviz-steps", lambda pipe: _attnviz(pipe, keep=("step",)), extra=True, **_ATTNVIZ),
    Tool(
        "daam",
        _daam,
        finish=_daam_finish,
        grids=_daam_grids,
        held_bytes=_daam_bytes,
        distribution="daam",
        peer=True,
        shims=(shims.SPACY,),
    ),
    Tool("attention-map-diffusers", _amd, **_AMD),
    Tool("attention-map-diffusers-exact", lambda pipe: _amd(pipe, mode="exact"), extra=True, **_AMD),
)
TOOLS: dict[str, Tool] = {tool.name: tool for tool in _ALL}
EXTRAS = {"attnviz": "attnviz-steps", "attention-map-diffusers": "attention-map-diffusers-exact"}
"""Further modes of tools, measured only on the hollow model."""


def with_extras(names: tuple[str, ...]) -> list[str]:
    """Return the names, each followed by its further mode."""
    return [name for tool in names for name in (tool, EXTRAS.get(tool)) if name]
