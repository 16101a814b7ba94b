"""Embedders with published weights that transformers can load: CLAP and PE-A-Frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from attnviz.arguments import public
from attnviz.errors import CheckpointError, EvaluationError, TruncationWarning, warn
from attnviz.evaluation.embedder import Embedder, module_digest
from attnviz.evaluation.listener_embedder import listener_embedder
from attnviz.io.json_files import read_json
from attnviz.io.paths import checked_path
from attnviz.models.conditioning.encoders import quiet
from attnviz.models.pipelines.checkpoints import locate
from attnviz.wording import counted

LISTENER = "listener"
_WINDOW_SECONDS = 10
_VERSION = 1  # of how clips are embedded
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    StrictDataclassError,
)
_WITHOUT_CLASS = {
    "panns": "PANNs", "cnn14": "PANNs", "vggish": "VGGish", "openl3": "OpenL3", "passt": "PaSST",
    "yamnet": "YAMNet",
}  # fmt: skip
_INSTEAD = (
    "In Python, give attnviz.evaluation.evaluate a callable from (audio, sampling_rate) to an embedding, or give "
    "the metrics arrays of embeddings (frechet_distance, kernel_audio_distance, ...)."
)


@public
def load_embedder(
    model: str | os.PathLike[str] = LISTENER,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    device: str = "cpu",
) -> Embedder:
    """Load an embedder by name, folder or hub repository.

    Parameters
    ----------
    model : str or path-like
        ``"listener"`` for the bundled one; the folder of a listener; or a folder or hub repository of a
        `ClapModel` or `PeAudioFrameLevelModel` of transformers, such as ``"laion/clap-htsat-unfused"``.
    revision : str, optional
        Branch, tag or commit of the hub repository.
    local_files_only : bool
        Use only the local cache of the hub.
    device : str
        Device of a model of transformers.

    Returns
    -------
    Embedder
        ``clap``: the normalized audio embedding of CLAP, at 48 kHz, of the clip scaled to a peak of 1, as
        Auffusion's authors do it. CLAP takes 10 s: shorter clips are repeated and padded by its feature extractor;
        of longer ones, the mean over windows of 10 s, the last of which ends with the clip (its own default, a
        random crop, gives another value each time). ``pe-a-frame``: the mean over time of the frame embeddings of
        PE-A-Frame.

    Raises
    ------
    CheckpointError
        If the folder or repository is missing or damaged, or the file lacks weights of the model.
    EvaluationError
        If no class of transformers reads it, as for PANNs and VGGish. The message says what to do.
    """
    folder = checked_path(model, "model", CheckpointError)
    name = os.fspath(model)
    if name == LISTENER:
        return listener_embedder()
    if name.lower() in _WITHOUT_CLASS or folder.suffix in {".pt", ".pth", ".ckpt", ".h5", ".tflite"}:
        called = _WITHOUT_CLASS.get(name.lower(), name)
        raise EvaluationError(f"{called} cannot be loaded: no class of transformers reads its weights. {_INSTEAD}")
    if (folder / "listener.safetensors").exists():
        return listener_embedder(folder)
    folder, _ = locate(model, revision=revision, local_files_only=local_files_only)
    config = read_json(folder / "config.json", error=CheckpointError, hint="An embedder is read by transformers.")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind == "clap":
        return _clap(folder, name, device)
    if kind == "pe_audio":
        return _pe_audio_frame(folder, name, device)
    raise EvaluationError(
        f"{name} is a model of the type {kind!r}; embedders are of the types 'clap' and 'pe_audio'. {_INSTEAD}"
    )


def _clap(folder: Path, name: str, device: str) -> Embedder:
    with _reading(name):
        model = _weights(transformers.ClapModel, folder, name).to(device)
        extractor = transformers.ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    limit = model.config.text_config.max_position_embeddings - 2  # RoBERTa's positions begin after the padding's
    rate = extractor.sampling_rate

    def window(audio: np.ndarray) -> torch.Tensor:
        with _global_seed_kept():  # the extractor draws from NumPy's generator, also where nothing is random
            inputs = extractor(audio, sampling_rate=rate, return_tensors="pt").to(device)
        with torch.inference_mode():
            return model.get_audio_features(**inputs).pooler_output[0]

    def embed(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
        normalized = librosa.util.normalize(audio)
        found = [window(normalized[start:stop]) for start, stop in _windows(audio.size, _WINDOW_SECONDS * rate)]
        return torch.stack(found).float().mean(dim=0).cpu().numpy()

    def embed_text(captions: Sequence[str]) -> np.ndarray:
        rows = []
        for caption in captions:
            tokens = tokenizer(caption, return_tensors="pt", truncation=True, max_length=limit)
            if len(tokenizer(caption)["input_ids"]) > limit:
                warn(f"the caption {caption[:60]!r} is cut after {limit} tokens for {name}.", TruncationWarning)
            with torch.inference_mode():
                rows.append(model.get_text_features(**tokens.to(device)).pooler_output[0].float().cpu().numpy())
        return np.stack(rows)

    note = f"{name} at {rate} Hz, peaks scaled to 1, windows of {_WINDOW_SECONDS} s averaged"
    settings = {"extractor": extractor.to_dict(), "window": _WINDOW_SECONDS}
    digest = module_digest(model, settings, _VERSION)
    return Embedder("clap", embed, rate, text=embed_text, digest=digest, note=note)


def _pe_audio_frame(folder: Path, name: str, device: str) -> Embedder:
    with _reading(name):
        model = _weights(transformers.PeAudioFrameLevelModel, folder, name).to(device)
        extractor = transformers.PeAudioFeatureExtractor.from_pretrained(folder, local_files_only=True)
    rate = extractor.sampling_rate

    def embed(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
        inputs = extractor(audio, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            frames = model.get_audio_embeds(inputs["input_values"].to(device))[0]
        return frames.float().mean(dim=0).cpu().numpy()

    digest = module_digest(model, {"extractor": extractor.to_dict()}, _VERSION)
    note = f"{name} at {rate} Hz, mean over frames"
    return Embedder("pe-a-frame", embed, rate, digest=digest, note=note)


def _weights(kind: Any, folder: Path, name: str) -> Any:
    """Load a model whose file has all of its weights; transformers would draw missing ones at random."""
    model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    wrong = {*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))}
    if wrong:
        raise CheckpointError(
            f"the weights of {name} lack {counted(len(wrong), 'parameter')} of {kind.__name__}, such as "
            f"{min(wrong)}."
        )
    return model.float().eval()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        with quiet():
            yield
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name} cannot be read by transformers: {reason}") from error


@contextmanager
def _global_seed_kept() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002  # the caller's, which the library draws from
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _windows(samples: int, length: int) -> list[tuple[int, int]]:
    """Return the first sample of each window and the sample after its last; the last window ends with the clip."""
    last = max(0, samples - length)
    return [(start, min(start + length, samples)) for start in [*range(0, last, length), last]]
