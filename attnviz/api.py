"""The main functions: load a checkpoint, trace a pipeline, explain a clip, detect and align events."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Any, Literal, overload

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
from attnviz.listener.listening import listen
from attnviz.models.families import Family, family_of, model_inside
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.models.pipelines.published import ModelWithProcessor, find_published
from attnviz.tracing.generation import GenerationTrace, check_no_processor
from attnviz.tracing.keys import Tokens
from attnviz.tracing.trace import Trace

__all__ = ["align", "explain", "listen", "load", "read_events", "trace"]

_logger = logging.getLogger(__name__)


@overload
def load(
    model: None = None,
    *,
    revision: str | None = None,
    torch_dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> AuffusionPipeline: ...


@overload
def load(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    torch_dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any: ...  # which class depends on the checkpoint


@public
def load(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    torch_dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """Load a published checkpoint of a text-to-audio model.

    Parameters
    ----------
    model : str or path-like, optional
        Default: the bundled model, which knows ten sounds. Otherwise a folder in one of the
        published layouts, or the name of a repository on the Hugging Face hub:
        ``"auffusion/auffusion"``, ``"auffusion/auffusion-full"``, ``"auffusion/auffusion-full-no-adapter"``, or of
        another family: ``"cvssp/audioldm2"``, ``"facebook/musicgen-small"``, ...
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
    AuffusionPipeline, diffusers.DiffusionPipeline or ModelWithProcessor
        A diffusers pipeline, of the class that the checkpoint names; ``pipe.to("cuda")`` and other methods are
        those of diffusers. Of MusicGen, the pair of the model and its processor.

    Raises
    ------
    CheckpointError
        If a file is missing or malformed, or the model belongs to no family. The message names the file or class
        and what was expected.
    CaptureError
        If no module of the model sees words (AudioLDM, MusicLDM).
    """
    if model is not None:
        published = find_published(
            model, revision=revision, local_files_only=local_files_only, cache_dir=cache_dir
        )
        if published is not None:
            return published.load(torch_dtype)
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
    pipe: diffusers.DiffusionPipeline | transformers.PreTrainedModel | ModelWithProcessor,
    *,
    processor: object = None,
    keep: Collection[Literal["step", "head"]] = (),
    tokens: Tokens = "text",
    branch: Literal["conditional", "both"] = "conditional",
    max_bytes: int = DEFAULT_MAX_BYTES,
    family: Family | None = None,
    grid: SpectrogramGrid | None = None,
    method: Literal["attention", "value", "rollout"] = "attention",
) -> Trace | GenerationTrace:
    """Observe the attention of a pipeline's calls to the text; a context manager.

    Either every cross-attention layer is observed, or an error is raised and none is. The output of the pipeline
    does not change by a single bit. Each map has the grid of its layer: rows and columns are read from the tensor,
    never guessed from a count.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline, transformers.PreTrainedModel or ModelWithProcessor
        An Auffusion pipeline, a plain ``StableDiffusionPipeline``, or a model of one of
        `attnviz.models.families.FAMILIES`: AudioLDM2, Stable Audio, Stable Audio 3, LongCat-AudioDiT, ACE-Step,
        MusicGen, MusicGen Melody, and Tango and TangoFlux in their published code.
    processor : object, optional
        Processor or tokenizer of a model of transformers, which is given token ids instead of words. Default: that
        of the pair that `attnviz.load` returns.
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
    method : {"attention", "value", "rollout"}
        What is recorded, the same in all layers:

        - ``"attention"``: how much each position attends to a word, a probability.
        - ``"value"``: what the word adds there, the norm of ``A V W_o``.
        - ``"rollout"``: attention, mixed over positions as the self-attention of the same block mixes them.

        The other methods of `attnviz.attribution` run the denoiser more than once; `attnviz.explain` takes them.

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
    if isinstance(pipe, ModelWithProcessor):
        pipe, processor = pipe.model, pipe.processor if processor is None else processor
    pipe = model_inside(pipe)
    found = family_of(pipe) if family is None else family
    if found is not None and found.codebooks is not None:
        return GenerationTrace(
            pipe, found, processor, keep=keep, tokens=tokens, branch=branch, max_bytes=max_bytes, method=method
        )
    check_no_processor(pipe, processor)
    return Trace(
        pipe,
        keep=keep,
        tokens=tokens,
        branch=branch,
        max_bytes=max_bytes,
        family=family,
        grid=grid,
        method=method,
    )
