"""The front door: a checkpoint loaded, a pipeline traced, a real clip explained, a clip listened to."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Literal

import diffusers
import torch

from attnviz import __version__, bundled
from attnviz.alignment import align
from attnviz.arguments import public
from attnviz.capture import DEFAULT_MAX_BYTES
from attnviz.events import read_events
from attnviz.explaining import explain
from attnviz.keys import Tokens
from attnviz.pipelines import AuffusionPipeline
from attnviz.sounds.listening import listen
from attnviz.tracing import Trace

__all__ = ["align", "explain", "listen", "load", "read_events", "trace"]

_logger = logging.getLogger(__name__)


@public
def load(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    torch_dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> AuffusionPipeline:
    """Load an Auffusion checkpoint as a text-to-audio pipeline.

    Parameters
    ----------
    model : str or path-like, optional
        Left out: the model that ships with the package, which knows ten sounds. Otherwise a folder in one of the
        published layouts, or the name of a repository on the Hugging Face hub:
        ``"auffusion/auffusion"``, ``"auffusion/auffusion-full"``, ``"auffusion/auffusion-full-no-adapter"``.
    revision : str, optional
        Branch, tag or commit of the hub repository.
    torch_dtype : torch.dtype, optional
        Precision of every part; float32 where left out.
    local_files_only : bool
        Look only into the local cache of the hub.
    cache_dir : path-like, optional
        Where hub files are kept, if not at the default place.

    Returns
    -------
    AuffusionPipeline
        A diffusers pipeline; ``pipe.to("cuda")`` and the like are diffusers' own.

    Raises
    ------
    CheckpointError
        Naming the file that is missing or malformed, and what was expected of it.
    """
    pipe = AuffusionPipeline.from_pretrained(
        bundled.FOLDER if model is None else model,
        revision=revision,
        torch_dtype=torch_dtype,
        local_files_only=local_files_only,
        cache_dir=cache_dir,
    )
    if model is None:  # not where this machine keeps it
        pipe.register_to_config(_name_or_path=bundled.NAME, _revision=__version__)
    _logger.info("loaded %s in %s", pipe.config["_name_or_path"], pipe.unet.dtype)
    return pipe


@public
def trace(
    pipe: diffusers.DiffusionPipeline,
    *,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    branch: Literal["conditional", "both"] = "conditional",
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Trace:
    """Observe the cross-attention of a pipeline's calls; a context manager.

    Every cross-attention layer is observed, or an error is raised and none is. What the pipeline computes
    stays the same to the last bit. Each map lies on the grid its layer really had: rows and columns are
    read from the tensor, never guessed from a count.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        An Auffusion pipeline, or a plain ``StableDiffusionPipeline``.
    keep : collection of {"step", "head"}
        Axes kept; the others are averaged as they come.
    tokens : {"text", "all"}
        ``"text"`` leaves padding out; start and end tokens are kept.
    branch : {"conditional", "both"}
        ``"both"`` keeps the unconditional branch too, which needs guidance.
    max_bytes : int
        What the maps may take, in bytes; settled at the first denoiser call, before more is computed.

    Returns
    -------
    Trace
        ``with trace(pipe) as t: pipe(...)``, then ``t.maps``.

    Raises
    ------
    CaptureError
        If the pipeline has no U-Net; on entering, if a layer cannot be observed faithfully (unknown
        attention processor, ``torch.compile``, token merging) or the U-Net is traced already; during the
        call, if attention is NaN or the maps exceed `max_bytes` (`MemoryBudgetError`).

    Notes
    -----
    An interrupt or error inside the block keeps the steps seen to their end; ``t.maps.complete`` is False.
    """
    return Trace(pipe, keep=keep, tokens=tokens, branch=branch, max_bytes=max_bytes)
