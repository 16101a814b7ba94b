"""Layers, tokens, grid and provenance of the maps of a run."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps.readouts import find_layer
from attnviz.maps.schema import FORMAT, layer_datasets, read_tokens, spectrogram_dataset
from attnviz.maps.words import StoredWord, words_with_maps
from attnviz.text.tokens import TokenTable


class MapsContents:
    """A tree of maps and its metadata. `AttentionMaps` adds reading, selecting and writing.

    Parameters
    ----------
    tree : xarray.DataTree
        A tree built by `AttentionMaps.from_layers`.

    Raises
    ------
    MapsError
        If the tree has another format.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        if tree.attrs.get("format") != FORMAT:
            raise MapsError(
                f"This tree does not contain maps: its format is {tree.attrs.get('format')!r}, not {FORMAT!r}."
            )
        self.tree = tree

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in the order of the model."""
        return list(self.tree.attrs["layers"])

    @cached_property
    def tokens(self) -> list[TokenTable]:
        """One token table per prompt."""
        return read_tokens(self.tree.attrs["tokens"])

    @cached_property
    def grid(self) -> SpectrogramGrid:
        """Grid of the spectrogram."""
        return SpectrogramGrid.from_dict(json.loads(self.tree.attrs["grid"]))

    @property
    def provenance(self) -> dict[str, Any]:
        """Settings of the run (a copy)."""
        return dict(json.loads(self.tree.attrs["provenance"]))

    @property
    def prompts(self) -> list[str]:
        """The prompts."""
        return [table.prompt for table in self.tokens]

    @property
    def images(self) -> int:
        """Number of images of each prompt."""
        return int(self[self.layers[0]].sizes["image"])

    @property
    def words(self) -> list[str]:
        """Words of the first prompt, including repetitions. For other prompts, use ``maps.tokens[i].words``."""
        return self.tokens[0].words

    @property
    def positions(self) -> np.ndarray:
        """Stored key positions, ascending."""
        return self[self.layers[0]]["token"].to_numpy()

    @property
    def timesteps(self) -> list[float]:
        """Timestep of each recorded denoiser call, in call order."""
        return list(self.tree.attrs["timesteps"])

    @property
    def complete(self) -> bool:
        """Whether the run was completed; False if it was interrupted."""
        return bool(self.tree.attrs["complete"])

    @property
    def branch(self) -> str:
        """Stored guidance branch: ``"conditional"``, ``"unconditional"`` or ``"both"``."""
        return str(self.tree.attrs["branch"])

    @property
    def encoder(self) -> int | None:
        """Index of the text encoder whose tokens were selected, or None."""
        return self.tree.attrs.get("encoder")

    @property
    def spectrogram(self) -> xr.DataArray | None:
        """Natural-log mel spectrogram (prompt, image, freq, time), lowest band first, or None."""
        dataset = spectrogram_dataset(self.tree)
        return None if dataset is None else dataset["log_mel"]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, in bytes."""
        sound = spectrogram_dataset(self.tree)
        total = sum(dataset.nbytes for _, dataset in layer_datasets(self.tree))
        return int(total + (0 if sound is None else sound.nbytes))

    def __getitem__(self, layer: str) -> xr.DataArray:
        """Return the attention of a layer, given its full or short name (``"down.0.1"``)."""
        name = find_layer(layer, self.layers)
        return self.tree.children["layers"].children[name].to_dataset(inherit=False)["attention"]

    @public
    def occurrences(self, prompt_index: int = 0) -> list[StoredWord]:
        """Return the occurrences of words of a prompt that have maps, in the order of the prompt.

        Words that were truncated or not stored are omitted.
        """
        return words_with_maps(self._table(prompt_index), self.positions.tolist(), self.encoder)

    def _table(self, prompt_index: int) -> TokenTable:
        if not 0 <= prompt_index < len(self.tokens):
            raise MapsError(f"There is no prompt {prompt_index}; there are {len(self.tokens)}, from 0.")
        return self.tokens[prompt_index]
