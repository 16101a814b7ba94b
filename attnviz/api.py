"""The main functions: load a checkpoint, trace a pipeline, explain a clip, detect and align events."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Literal

import diffusers
import torch
import transformers

from attnviz import __version__, bundled
from attnviz.alignment import align
from attnviz.arguments import public
from attnviz.attribution import explain
from attnviz.audio import SpectrogramGrid
from attnviz.capture import DEFAULT_MAX_BYTES
from attnviz.events import read_events
from attnviz.generation import GenerationTrace
from attnviz.keys import Tokens
from attnviz.models.families import Family, family_of, model_inside
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
        Default: the bundled model, which knows ten sounds. Otherwise a folder in one of the
        published layouts, or the name of a repository on the Hugging Face hub:
        ``"auffusion/auffusion"``, ``"auffusion/auffusion-full"``, ``"auffusion/auffusion-full-no-adapter"``.
    revision : str, optional
        Branch, tag or commit of the hub repository.
    torch_dtype : torch.dtype, optional
        Dtype of every part; default: float32.
    local_files_only : bool
        Use only the local cache of the hub.
    cache_dir : path-like, optional
        Cache folder of the hub, if not the default.

    Returns
    -------
    AuffusionPipeline
        A diffusers pipeline; ``pipe.to("cuda")`` and other methods are those of diffusers.

    Raises
    ------
    CheckpointError
        If a file is missing or malformed. The message names the file and what was expected.
    """
    pipe = AuffusionPipeline.from_pretrained(
        bundled.FOLDER if model is None else model,
        revision=revision,
        torch_dtype=torch_dtype,
        local_files_only=local_files_only,
        cache_dir=cache_dir,
    )
    if model is None:  # record the model's name, not its path on this machine
        pipe.register_to_config(_name_or_path=bundled.NAME, _revision=__version__)
    _logger.info("loaded %s in %s", pipe.config["_name_or_path"], pipe.unet.dtype)
    return pipe


@public
def trace(
    pipe: diffusers.DiffusionPipeline | transformers.PreTrainedModel,
    *,
    processor: object = None,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    branch: Literal["conditional", "both"] = "conditional",
    max_bytes: int = DEFAULT_MAX_BYTES,
    family: Family | None = None,
    grid: SpectrogramGrid | None = None,
) -> Trace | GenerationTrace:
    """Observe the attention of a pipeline's calls to the text; a context manager.

    Either every cross-attention layer is observed, or an error is raised and none is. The output of the pipeline
    does not change by a single bit. Each map has the grid of its layer: rows and columns are read from the tensor,
    never guessed from a count.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline or transformers.PreTrainedModel
        An Auffusion pipeline, a plain ``StableDiffusionPipeline``, or a model of one of
        `attnviz.models.families.FAMILIES`: AudioLDM2, Stable Audio, Stable Audio 3, LongCat-AudioDiT, ACE-Step,
        MusicGen, MusicGen Melody, and Tango and TangoFlux in their published code.
    processor : object, optional
        Processor or tokenizer of a model of transformers, which is given token ids instead of words.
    keep : collection of {"step", "head"}
        Axes to keep; the others are averaged during the call.
    tokens : {"text", "all"}
        ``"text"`` omits padding and keeps start and end tokens.
    branch : {"conditional", "both"}
        ``"both"`` also keeps the unconditional branch, which requires guidance.
    max_bytes : int
        Upper limit of the maps' size in bytes; checked at the first denoiser call.
    family : Family, optional
        Record of a model that none of `FAMILIES` describes; see `attnviz.models.families.Family`.
    grid : SpectrogramGrid, optional
        Seconds and hertz of the image of a plain pipeline, such as Riffusion's, whose highest frequency is on top.
        By default, those of Auffusion, which are known for images of 256 rows.

    Returns
    -------
    Trace
        ``with trace(pipe) as t: pipe(...)``, then ``t.maps``.

    Raises
    ------
    CaptureError
        If the pipeline belongs to no family (the message contains the lines that make one), or no module of it
        sees words (AudioLDM, MusicLDM); on entry, if a layer cannot be observed faithfully (unknown attention
        processor, ``torch.compile``, token merging) or the U-Net is already traced; during the call, if attention
        is NaN or the maps exceed `max_bytes` (`MemoryBudgetError`).

    Notes
    -----
    After an interrupt or error inside the block, the completed steps are kept, and ``t.maps.complete`` is False.
    """
    pipe = model_inside(pipe)
    found = family_of(pipe) if family is None else family
    if found is not None and found.codebooks is not None:
        return GenerationTrace(
            pipe, found, processor, keep=keep, tokens=tokens, branch=branch, max_bytes=max_bytes
        )
    return Trace(pipe, keep=keep, tokens=tokens, branch=branch, max_bytes=max_bytes, family=family, grid=grid)
