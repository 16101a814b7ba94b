"""`AttentionMaps`: the attention maps of one pipeline call, with axes, words and provenance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import AttnVizError, MapsError
from attnviz.maps import display, export
from attnviz.maps.layer import LayerAttention
from attnviz.maps.merging import merge_trees
from attnviz.maps.reading import Phrase, ReadableMaps
from attnviz.maps.schema import tree_from_layers
from attnviz.maps.selection import select_tree
from attnviz.maps.settling import Readout
from attnviz.maps.store import read_tree, write_tree
from attnviz.text.tokens import TokenTable


class AttentionMaps(ReadableMaps):
    """Labelled cross-attention maps of one pipeline call: attention to each token over time and frequency.

    Created by `attnviz.trace`, `from_layers` or `load`. Instances are immutable.

    Parameters
    ----------
    tree : xarray.DataTree
        A tree built by `from_layers`.

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
            )
        )

    @public
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save as a zarr 3 folder, atomically.

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
