"""Load published checkpoints of other families: pipelines of diffusers, MusicGen, and Tango and TangoFlux."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers

from attnviz.errors import CheckpointError
from attnviz.io.json_files import read_json
from attnviz.models.families import FAMILIES, Family, family_named
from attnviz.models.pipelines.checkpoints import check_dtype, locate
from attnviz.models.pipelines.parts import DAMAGE, reason
from attnviz.models.pipelines.tango import TangoFluxPipeline, TangoPipeline
from attnviz.models.pipelines.tango_files import FLUX_NAMES, TANGO_CONFIG, load_tango, load_tango_flux

_STATING = ["model_index.json", "config.json", "condition_config.json", "main_config.json", "*.md", "LICENSE*"]
_OF_TRANSFORMERS = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
_OWN_LAYOUTS = {"TangoPipeline": load_tango, "TangoFluxPipeline": load_tango_flux}
_OWN = {kind.__name__: kind for kind in (TangoPipeline, TangoFluxPipeline)}
"""Pipelines that diffusers does not have."""
_COMPUTED = ("embed_positions.weights",)  # sinusoids: they need not be in a checkpoint


class ModelWithProcessor(NamedTuple):
    """A model of transformers, and what makes its token ids: its processor, or its tokenizer alone.

    `attnviz.trace` takes the pair. It unpacks: ``model, processor = attnviz.load("facebook/musicgen-small")``.
    """

    model: Any
    processor: Any


@dataclass(frozen=True)
class Published:
    """A checkpoint of a family, found but not loaded.

    Attributes
    ----------
    source : str
        Its folder, or its name on the hub.
    folder : pathlib.Path
        Where its configuration files are.
    commit : str or None
        The hub's commit; None for a local folder.
    class_name : str
        Class that loads it.
    family : Family
    local_files_only : bool
    cache_dir : str or path-like or None
    """

    source: str
    folder: Path
    commit: str | None
    class_name: str
    family: Family
    local_files_only: bool = False
    cache_dir: str | os.PathLike[str] | None = None

    @property
    def kind(self) -> Any:
        """The class that loads it.

        Raises
        ------
        CheckpointError
            If the installed library does not have it.
        """
        if self.class_name in _OWN:
            return _OWN[self.class_name]
        library = transformers if self.class_name in _OF_TRANSFORMERS.values() else diffusers
        kind = getattr(library, self.class_name, None)
        if kind is None:
            raise CheckpointError(
                f"{self.source} needs the class {self.class_name}, which {library.__name__} {library.__version__} "
                "does not have. Is a newer version needed?"
            )
        return kind

    def load(self, torch_dtype: torch.dtype | None = None) -> Any:
        """Load it.

        Parameters
        ----------
        torch_dtype : torch.dtype, optional
            Dtype of every part; default: float32.

        Returns
        -------
        diffusers.DiffusionPipeline or ModelWithProcessor

        Raises
        ------
        CheckpointError
            If a file is missing or malformed, a part is code of the checkpoint's own, or a library is missing.
        """
        check_dtype(torch_dtype)
        kind, dtype = self.kind, torch_dtype or torch.float32
        try:
            if self.class_name in _OWN_LAYOUTS and not (self.folder / "model_index.json").is_file():
                return self._of_own_layout(dtype)
            if issubclass(kind, diffusers.DiffusionPipeline):
                return self._pipeline(kind, dtype)
            return self._model(kind, dtype)
        except CheckpointError:
            raise
        except (*DAMAGE, ImportError) as error:
            raise CheckpointError(
                f"{self.source} could not be loaded as {kind.__name__}: {reason(error)}"
            ) from error

    @property
    def _arguments(self) -> dict[str, Any]:
        return {
            "revision": self.commit,
            "local_files_only": self.local_files_only or self.commit is None,
            "cache_dir": self.cache_dir,
        }

    def _pipeline(self, kind: Any, dtype: torch.dtype) -> Any:
        index = _object(self.folder / "model_index.json")
        _check_libraries(self.source, index)
        given = {}
        if index.get("language_model") == ["transformers", "GPT2Model"]:
            # As AudioLDM2 is published. The pipeline generates with it, which GPT2Model no longer does; the same
            # weights are those of GPT2LMHeadModel (diffusers issue 12630).
            given["language_model"] = transformers.GPT2LMHeadModel.from_pretrained(
                self.source, subfolder="language_model", dtype=dtype, **self._arguments
            )
        pipe = kind.from_pretrained(self.source, torch_dtype=dtype, **given, **self._arguments)
        for name, part in pipe.components.items():
            if isinstance(part, torch.nn.Module) and (missing := _without_weights(part)):
                raise CheckpointError(
                    f"{self.source}: the {name} lacks weights, first {missing!r}. Is a file cut off, or missing?"
                )
            if isinstance(part, transformers.PreTrainedTokenizerBase):
                _check_vocabulary(self.source, name, part)
        pipe.register_to_config(_name_or_path=self.source, _revision=self.commit)
        return pipe

    def _of_own_layout(self, dtype: torch.dtype) -> Any:
        hub: dict[str, Any] = {"local_files_only": self.local_files_only, "cache_dir": self.cache_dir}
        folder, _ = locate(self.source, revision=self.commit, **hub)
        pipe = _OWN_LAYOUTS[self.class_name](folder, dtype, hub)
        _check_vocabulary(self.source, "tokenizer", pipe.tokenizer)
        pipe.register_to_config(_name_or_path=self.source, _revision=self.commit)
        return pipe

    def _model(self, kind: Any, dtype: torch.dtype) -> ModelWithProcessor:
        model, info = kind.from_pretrained(self.source, dtype=dtype, output_loading_info=True, **self._arguments)
        missing = sorted(key for key in info["missing_keys"] if not key.endswith(_COMPUTED))
        if missing:
            raise CheckpointError(
                f"{self.source} lacks {len(missing)} weights of a {kind.__name__}, first {missing[0]!r}. Is a "
                "file cut off, or from another model?"
            )
        processor = self._processor()
        _check_vocabulary(self.source, "tokenizer", getattr(processor, "tokenizer", processor))
        return ModelWithProcessor(model.eval(), processor)

    def _processor(self) -> Any:
        """Return the processor; its tokenizer where it is not whole, or needs a library for audio prompts."""
        try:
            return transformers.AutoProcessor.from_pretrained(self.source, **self._arguments)
        except (OSError, ImportError, ValueError):
            return transformers.AutoTokenizer.from_pretrained(self.source, **self._arguments)


def find_published(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Published | None:
    """Find a checkpoint of a family other than Auffusion's; of the hub, only its configuration is downloaded.

    Parameters
    ----------
    model, revision, local_files_only, cache_dir
        As in `attnviz.load`.

    Returns
    -------
    Published or None
        None if the folder is to be read as an Auffusion checkpoint.

    Raises
    ------
    CheckpointError
        If there is no such folder or repository, or it states a class of no family.
    CaptureError
        If no attention module of the model sees a word (AudioLDM, MusicLDM).
    """
    folder, commit = locate(
        model, revision=revision, local_files_only=local_files_only, cache_dir=cache_dir, files=_STATING
    )
    stated = _stated(folder)
    if stated is None:
        _check_index(folder)
        return None
    family = family_named(stated)
    if family is None:
        known = ", ".join(name for each in FAMILIES for name in each.pipelines)
        raise CheckpointError(
            f"{folder} is a {stated}, which belongs to no family that attnviz knows: Auffusion, {known}. Load it "
            "with its own library, and describe it: attnviz.trace(pipe, family=...), as docs/models.md shows."
        )
    return Published(os.fspath(model), folder, commit, stated, family, local_files_only, cache_dir)


def _stated(folder: Path) -> str | None:
    """Return the class that a checkpoint's configuration names; None if it is Auffusion's, or names none."""
    if (folder / "condition_config.json").is_file():
        return None
    if (folder / "model_index.json").is_file():
        try:
            index = _object(folder / "model_index.json")
        except CheckpointError:  # Auffusion's plain layout is read without it
            return None
        name = index.get("_class_name")
        if not isinstance(name, str):
            return None
        # Auffusion's plain layout is Stable Diffusion's.
        plain = index.get("unet") == ["diffusers", "UNet2DConditionModel"] and family_named(name) is None
        return None if plain else name
    if (folder / TANGO_CONFIG).is_file():
        return TangoPipeline.__name__
    if not (folder / "config.json").is_file():
        return None
    config = _object(folder / "config.json")
    if config.keys() >= FLUX_NAMES:
        return TangoFluxPipeline.__name__
    kind = config.get("model_type")
    return _OF_TRANSFORMERS.get(kind, kind) if isinstance(kind, str) else None


def _object(path: Path) -> Mapping[str, Any]:
    content = read_json(path, error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object: it holds a {type(content).__name__}.")
    return content


def _check_index(folder: Path) -> None:
    """Raise if a folder that names no class has parts that no Auffusion checkpoint has."""
    unet = folder / "unet" / "config.json"
    other = _object(unet).get("_class_name") if unet.is_file() else None
    part = "transformer" if (folder / "transformer").is_dir() else None
    if isinstance(other, str) and other != diffusers.UNet2DConditionModel.__name__:
        part = other
    if part is not None:
        raise CheckpointError(
            f"{folder} has a {part}, so it is no Auffusion checkpoint, and its model_index.json, which names the "
            f"class of another, {'names none' if (folder / 'model_index.json').is_file() else 'is missing'}."
        )


def _check_vocabulary(source: str, name: str, tokenizer: Any) -> None:
    """Raise if a tokenizer knows no words: transformers makes one without its files, and says nothing."""
    if len(tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()) < 2:
        raise CheckpointError(
            f"{source}: the {name} knows no words. Is its vocabulary (tokenizer.json, spiece.model or vocab.json) "
            "missing?"
        )


def _check_libraries(source: str, index: Mapping[str, Any]) -> None:
    """Raise if a part would be loaded by code that the checkpoint brings."""
    for name, stated in index.items():
        library = stated[0] if isinstance(stated, list) and len(stated) == 2 else None
        known = (None, "diffusers", "transformers", TangoFluxPipeline.__module__)
        if library in known or hasattr(diffusers.pipelines, str(library)):
            continue
        raise CheckpointError(
            f"{source} names {stated} for its {name}. Only classes of diffusers and transformers are loaded: code "
            "of a checkpoint's own is never run."
        )


def _without_weights(module: torch.nn.Module) -> str | None:
    """Return the name of a parameter that no file gave."""
    return next((name for name, parameter in module.named_parameters() if parameter.is_meta), None)
