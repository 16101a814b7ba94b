"""`AttentionMaps`: the attention maps of one pipeline call, with axes, words and provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import AttnVizError, MapsError, PromptError
from attnviz.maps import display, export
from attnviz.maps.heats import read_heat
from attnviz.maps.layer import LayerAttention
from attnviz.maps.merging import merge_trees
from attnviz.maps.phrases import Phrase, activation_of, phrase_positions, token_positions
from attnviz.maps.readouts import find_layer
from attnviz.maps.schema import CONTENT, FORMAT, layer_datasets, read_tokens, spectrogram_dataset, tree_from_layers
from attnviz.maps.selection import select_tree
from attnviz.maps.settling import Readout
from attnviz.maps.store import read_tree, write_tree
from attnviz.maps.words import StoredWord, words_with_maps
from attnviz.text.tokens import TokenTable
from attnviz.text.words import find_phrase


@public
class AttentionMaps:
    """Labelled cross-attention maps of one pipeline call: attention to each token over time and frequency.

    Created by `attnviz.trace`, `from_layers` or `load`. Instances are immutable.

    Parameters
    ----------
    tree : xarray.DataTree
        A tree built by `from_layers`.

    Raises
    ------
    MapsError
        If the tree has another format.

    Attributes
    ----------
    tree : xarray.DataTree
        One group ``layers/<name>`` per layer, with the variable ``attention``: float32 attention probability with
        dims in the order ``[branch], prompt, image, [step], [head], token, freq, time``, averaged over the
        optional dims that are absent. ``freq`` is ascending, in Hz. ``time`` is in seconds. Both refer to the
        centres of cells. ``token`` is the key position, with the coordinates ``token_text``, ``token_kind`` and
        ``token_encoder``. ``timestep`` is a coordinate of ``step``, and ``padding`` of ``time``. The optional
        group ``spectrogram`` contains ``log_mel`` (prompt, image, freq, time).

    Notes
    -----
    Columns beyond the end of the audio are padding. `heatmap` marks them. `activation` and every statistic derived
    from it exclude them.
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
    def content(self) -> dict[str, Any]:
        """What the values are: ``quantity``, ``signed`` (0 or 1), ``method``, and the model's ``family``."""
        return {name: self.tree.attrs.get(name, default) for name, default in CONTENT.items()}

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

    def _phrase_positions(self, phrase: Phrase, occurrence: int | None, prompt_index: int) -> np.ndarray:
        """Return the key positions of a phrase; if only another prompt has it, the error names that prompt."""
        table = self._table(prompt_index)
        try:
            return phrase_positions(table, phrase, occurrence, stored=self.positions, encoder=self.encoder)
        except PromptError as error:
            if not isinstance(phrase, str) or find_phrase(table.prompt, phrase):
                raise
            others = [str(number) for number, prompt in enumerate(self.prompts) if find_phrase(prompt, phrase)]
            if not others:
                raise
            raise PromptError(
                f"{error} Prompt {' and '.join(others)} has it: give prompt_index={others[0]}."
            ) from error

    def _table(self, prompt_index: int) -> TokenTable:
        if not 0 <= prompt_index < len(self.tokens):
            raise MapsError(f"There is no prompt {prompt_index}; there are {len(self.tokens)}, from 0.")
        return self.tokens[prompt_index]

    # ---- making, saving, loading -------------------------------------------------------------------------

    @classmethod
    @public
    def from_layers(
        cls,
        layers: Mapping[str, LayerAttention],
        *,
        tokens: Sequence[TokenTable],
        positions: Sequence[int],
        timesteps: Sequence[float],
        grid: SpectrogramGrid,
        spectrogram: np.ndarray | None = None,
        provenance: Mapping[str, Any] | None = None,
        complete: bool = True,
        levels: Sequence[tuple[int, int]] | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> AttentionMaps:
        """Label captured attention.

        Parameters
        ----------
        layers : mapping of str to LayerAttention
            Captured layers by name, in the order of the model. Each is looked up once and copied, so a lazy
            mapping needs memory for one layer only.
        tokens : sequence of TokenTable
            One token table per prompt.
        positions : sequence of int
            Key position of each entry of the token axis, ascending, the same for every prompt.
        timesteps : sequence of float
            Timestep of each recorded denoiser call, also if the calls were averaged. Values may repeat.
        grid : SpectrogramGrid
            Grid that maps columns of the spectrogram to seconds and rows to Hz.
        spectrogram : numpy.ndarray, shape (prompts, images, bands, frames), optional
            Natural-log mel spectrogram of the result, lowest band first.
        provenance : mapping, optional
            Settings of the run, as JSON-serialisable values (NumPy numbers and paths are converted).
        complete : bool
            False if the run was interrupted.
        levels : sequence of (rows, columns), optional
            Grids of all cross-attention layers of the model. Required if `layers` omits some of them, because the
            ``"auffusion"`` readout uses the second-finest grid of the model.
        content : mapping, optional
            What the values are, where it is not the default: see `content`.

        Raises
        ------
        MapsError
            If values are not finite, or if axes, sizes, tokens or timesteps are inconsistent. The message names
            the layer.
        """
        return cls(
            tree_from_layers(
                layers,
                tokens=tokens,
                positions=positions,
                timesteps=timesteps,
                grid=grid,
                spectrogram=spectrogram,
                provenance=provenance,
                complete=complete,
                levels=levels,
                content={**CONTENT, **(content or {})},
            )
        )

    @public
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save as a zarr 3 folder, atomically.

        All layers are in one array ``attention`` with shared coordinates, which ``xarray.open_zarr(path)`` opens
        lazily: ``attention.sel(layer=NAME)`` is one layer, NaN beyond its rows and columns.

        Parameters
        ----------
        path : str or path-like
            Folder to create, for example ``"dog.zarr"``. Its parent folder must exist.
        overwrite : bool
            Replace maps saved at `path` after the new ones are written. Other files and folders are never
            replaced.

        Raises
        ------
        OutputError
            If `path` cannot be written, or exists and `overwrite` is False or it does not contain saved maps.
        """
        write_tree(self.tree, path, overwrite=overwrite)

    @classmethod
    @public
    def load(cls, path: str | os.PathLike[str]) -> AttentionMaps:
        """Load saved maps into memory and verify the checksum of every array.

        Parameters
        ----------
        path : str or path-like
            Folder written by `save`, or a run folder, whose ``maps.zarr`` is loaded.

        Raises
        ------
        MapsError
            If there are no maps at `path`, or if they are damaged, incomplete or of a newer format. The message
            gives the path and the problem.
        """
        maps = cls(read_tree(path))
        try:
            _ = maps.tokens, maps.grid, maps.provenance
        except (AttnVizError, ValueError, LookupError, TypeError) as error:
            raise MapsError(f"{path}: its tokens, grid or provenance cannot be read: {error}") from error
        return maps

    @classmethod
    @public
    def merge(cls, maps: Sequence[AttentionMaps]) -> AttentionMaps:
        """Concatenate runs that differ only in their seeds along the image axis.

        The result has the settings of the first run. ``provenance["merged"]`` lists the fields that are specific
        to each run, such as its seed.

        Raises
        ------
        MapsError
            If the runs differ in more than seed, number of images, dates, paths and warnings. The message gives
            the first field that differs and both values.
        """
        return cls(merge_trees([one.tree for one in maps]))

    # ---- narrowing -----------------------------------------------------------------------------------------

    @public
    def select(
        self,
        *,
        layers: str | Iterable[str] | None = None,
        steps: int | Iterable[int] | None = None,
        heads: int | Iterable[int] | None = None,
        encoder: int | None = None,
        branch: str | None = None,
    ) -> AttentionMaps:
        """Select layers, steps, heads, an encoder or a branch. Arrays are shared with the original.

        Parameters
        ----------
        layers : str or iterable of str, optional
            Full or short names. The ``"mean"`` readout then averages these layers.
        steps, heads : int or iterable of int, optional
            Labels on the step and head axes, from 0. The selection keeps these labels, so it can be narrowed
            again.
        encoder : int, optional
            Keep the tokens of this text encoder.
        branch : {"conditional", "unconditional"}, optional
            Keep one guidance branch.

        Raises
        ------
        MapsError
            If a label is unknown (the message lists the available ones), or if its axis was averaged out.
        """
        return AttentionMaps(
            select_tree(self.tree, layers=layers, steps=steps, heads=heads, encoder=encoder, branch=branch)
        )

    # ---- reading ---------------------------------------------------------------------------------------------

    @public
    def heatmap(
        self,
        phrase: Phrase,
        *,
        occurrence: int | None = None,
        prompt_index: int = 0,
        sample: int = 0,
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
    ) -> xr.DataArray:
        """Compute the heat map of a phrase over frequency and time.

        Parameters
        ----------
        phrase : str or (int, int)
            Words of the prompt (case-insensitive, at word boundaries), or their character span.
        occurrence : int, optional
            Index of the occurrence, from 0. Required if the phrase occurs more than once in the prompt.
        prompt_index, sample : int
            Indices, from 0, of the prompt and of its sample (image).
        readout : str, FittedReadout or SharpReadout
            Method that combines layers into one map:

            - ``"mean"``: resize every layer to the finest grid and average (after DAAM; `attnviz.maps.readouts`
              lists the differences).
            - ``"auffusion"``: average the down and up layers of the second-finest grid, then divide each token by
              its maximum. This is the rule of the Auffusion authors; it gives every word the same maximum.
            - the name of a layer: use that layer only.
            - a `FittedReadout`: use its weights. ``"fitted"`` is the readout of the bundled model.
            - ``"sharp"`` or a `SharpReadout`: the share of the phrase in each cell of the spectrogram, times the
              cell's magnitude above the floor of its band. Its finest grid has 256 bands and columns of 40 ms.
        pool : {"mean", "max", "first", "last"}
            Method that pools the tokens of the phrase, over all encoders, into one map. ``first`` and ``last``
            refer to the key position.
        grid : {"finest", "image"}
            Grid of the result: the finest grid among the layers used, or the grid of the spectrogram (256 x 1024).
            Resizing is bilinear.

        Returns
        -------
        xarray.DataArray, float32, dims (freq, time)
            Dims (time) if the model has no frequency axis. Finite values. The coordinate ``padding`` (bool, along
            time) marks columns beyond the end of the audio. Stored steps and heads are averaged. If both guidance
            branches are stored, the conditional one is used.

        Raises
        ------
        PromptError
            If the phrase is not in the prompt, was truncated, or is repeated and `occurrence` is not given.
        MapsError
            If its tokens were not stored, if the readout, pool, grid, prompt or sample is unknown, or if the maps
            lack a layer, head or timestep of a fitted readout.

        Examples
        --------
        ``maps.heatmap("dog barks").sel(freq=slice(1000, 4000))``
        """
        positions = self._phrase_positions(phrase, occurrence, prompt_index)
        return read_heat(
            self,
            positions,
            str(phrase),
            prompt_index=prompt_index,
            sample=sample,
            readout=readout,
            pool=pool,
            grid=grid,
        )

    @public
    def activation(
        self,
        phrase: Phrase,
        *,
        axis: Literal["time", "freq"] = "time",
        occurrence: int | None = None,
        prompt_index: int = 0,
        sample: int = 0,
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
    ) -> xr.DataArray:
        """Compute the activation of a phrase over time or frequency: its heat map averaged over the other axis.

        Parameters
        ----------
        axis : {"time", "freq"}
            Axis of the result.
        phrase, occurrence, prompt_index, sample, readout, pool, grid
            As for `heatmap`.

        Returns
        -------
        xarray.DataArray, float32, dims (time) or (freq)
            Along time, NaN in padding. Along frequency, the mean over columns that are not padding.

        Raises
        ------
        PromptError, MapsError
            If the axis is unknown, or as for `heatmap`.
        """
        heat = self.heatmap(
            phrase,
            occurrence=occurrence,
            prompt_index=prompt_index,
            sample=sample,
            readout=readout,
            pool=pool,
            grid=grid,
        )
        return activation_of(heat, axis)

    @public
    def token_heatmap(
        self,
        token: int | str,
        *,
        prompt_index: int = 0,
        sample: int = 0,
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
    ) -> xr.DataArray:
        """Compute the heat map of one key position, or of all stored tokens of a kind; see `heatmap`.

        Parameters
        ----------
        token : int or {"start", "text", "end", "padding"}
            A key position, or a kind of token. To read the word "end" of a prompt, use ``heatmap("end")``.
        prompt_index, sample, readout, pool, grid
            As for `heatmap`.

        Raises
        ------
        MapsError
            If the position or kind was not stored.
        """
        positions = token_positions(self._table(prompt_index), token, stored=self.positions)
        return read_heat(
            self,
            positions,
            f"<{token}>",
            prompt_index=prompt_index,
            sample=sample,
            readout=readout,
            pool=pool,
            grid=grid,
        )

    @public
    def token_activation(
        self,
        token: int | str,
        *,
        axis: Literal["time", "freq"] = "time",
        prompt_index: int = 0,
        sample: int = 0,
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
    ) -> xr.DataArray:
        """Compute the activation of a token over time or frequency; see `token_heatmap` and `activation`."""
        heat = self.token_heatmap(
            token, prompt_index=prompt_index, sample=sample, readout=readout, pool=pool, grid=grid
        )
        return activation_of(heat, axis)

    # ---- tables and files --------------------------------------------------------------------------------

    @public
    def to_dataframe(
        self,
        *,
        axis: Literal["time", "freq"] = "time",
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
    ) -> pd.DataFrame:
        """Tabulate the activation of every word; see `attnviz.maps.export.word_table`."""
        return export.word_table(self, axis=axis, readout=readout, pool=pool, grid=grid)

    @public
    def to_npz(
        self,
        path: str | os.PathLike[str],
        *,
        readout: Readout = "mean",
        pool: str = "mean",
        grid: str = "finest",
        overwrite: bool = False,
    ) -> None:
        """Write word activity and heat maps as NPZ; see `attnviz.maps.export.write_npz`."""
        export.write_npz(self, path, readout=readout, pool=pool, grid=grid, overwrite=overwrite)

    @public
    def to_audacity(
        self,
        path: str | os.PathLike[str],
        *,
        phrases: Iterable[Phrase] | None = None,
        threshold: float = 0.5,
        prompt_index: int = 0,
        sample: int = 0,
        readout: Readout = "mean",
        pool: str = "mean",
        overwrite: bool = False,
    ) -> pd.DataFrame:
        """Write word activity as an Audacity label track; see `attnviz.maps.export.write_audacity`."""
        return export.write_audacity(
            self,
            path,
            phrases=phrases,
            threshold=threshold,
            prompt_index=prompt_index,
            sample=sample,
            readout=readout,
            pool=pool,
            overwrite=overwrite,
        )

    def __repr__(self) -> str:
        return display.text(self)

    def _repr_html_(self) -> str:
        return display.html(self)
