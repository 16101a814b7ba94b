"""Keep embeddings in a folder, found again by the content of the clip and of the embedder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from attnviz.arguments import public
from attnviz.errors import AudioError, EvaluationError
from attnviz.evaluation.embedder import Embedder
from attnviz.io.paths import FilePath, checked_path
from attnviz.io.storage import make_parents, write_whole


class EmbeddingCache:
    """A folder with the embeddings of clips.

    A file is named by the SHA-256 digest of the audio file's bytes, in a folder named by the embedder's name and
    digest. A clip that was moved or renamed is found; one that was changed is embedded again, as are all clips for
    other weights. Several processes may use one folder.

    Parameters
    ----------
    folder : path-like
        Created when the first embedding is kept.

    Raises
    ------
    EvaluationError
        If the path is none.
    """

    @public
    def __init__(self, folder: FilePath) -> None:
        self.folder = checked_path(folder, "the folder of the cache", EvaluationError)

    @public
    def get(self, path: FilePath, embedder: Embedder) -> dict[str, np.ndarray] | None:
        """Return what an embedder gave for a clip, or None if it is not in the cache.

        Raises
        ------
        EvaluationError
            If the embedder has no digest, or the file in the cache is damaged.
        """
        place = self._place(path, embedder)
        if not place.exists():
            return None
        try:
            found = safetensors.numpy.load(place.read_bytes())
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise EvaluationError(f"{place} in the cache is damaged: {error}. Remove it.") from error
        if strange := [name for name, array in found.items() if array.ndim != 1 or array.dtype.kind not in "fiu"]:
            raise EvaluationError(
                f"{place} in the cache is damaged: {strange[0]} is no array of numbers. Remove it."
            )
        return found

    @public
    def put(self, path: FilePath, embedder: Embedder, found: dict[str, np.ndarray]) -> None:
        """Keep what an embedder gave for a clip.

        Raises
        ------
        EvaluationError
            If the embedder has no digest, or `found` has something else than arrays of numbers.
        OutputError
            If the folder cannot be written.
        """
        place = self._place(path, embedder)
        try:
            content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in found.items()})
        except safetensors.SafetensorError as error:
            raise EvaluationError(
                f"what {embedder.name} gave for {path} is no array of numbers: {error}."
            ) from error
        make_parents(place)
        write_whole(place, content)

    def _place(self, path: FilePath, embedder: Embedder) -> Path:
        if embedder.digest is None:
            raise EvaluationError(
                f"the embedder {embedder.name} has no digest, so its embeddings cannot be cached: one of changed "
                "weights would not be noticed. Give Embedder(..., digest=...), or leave out the cache."
            )
        clip = checked_path(path, "the path of an audio file", AudioError)
        try:
            with clip.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise AudioError(f"audio file {clip} cannot be opened: {error.strerror or error}.") from error
        own = hashlib.sha256(f"{embedder.name}\0{embedder.digest}".encode()).hexdigest()[:16]
        return self.folder / own / digest[:2] / f"{digest}.safetensors"
