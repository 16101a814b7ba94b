"""`AttentionMaps`: the maps of one pipeline call, with their axes, words and provenance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

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
    """Which word was attended to when and at which frequencies: labelled arrays of one pipeline call.

    Made by `attnviz.trace`, by `from_layers` or by `load`; never changed afterwards.

    Parameters
    ----------
    tree : xarray.DataTree
        A tree as `from_layers` builds it.

    Attributes
    ----------
    tree : xarray.DataTree
        Group ``layers/<name>`` for each layer, with the variable ``attention``, float32, dims always in the order
        ``[branch], prompt, image, [step], [head], token, freq, time``: probability, averaged over the axes that
        are absent. ``freq`` ascends, in Hz; ``time`` is in seconds (centres of cells); ``token`` is the key
        position, with ``token_text``, ``token_kind`` and ``token_encoder`` beside it; ``timestep`` stands along
        ``step`` and ``padding`` along ``time``. Group ``spectrogram``, where there is one, with ``log_mel``
        (prompt, image, freq, time).

    Notes
    -----
    Columns beyond the audio are padding: `heatmap` marks them, `activation` and everything computed from it
    leave them out.
    """

    # ---- making, saving, loading -------------------------------------------------------------------------

    @classmethod
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
            Captured layers by name, in the model's order. Each is looked up once and copied, so a mapping that
            makes its layers on demand never holds two at once.
        tokens : sequence of TokenTable
            One token table a prompt.
        positions : sequence of int
            Key position of each entry of the token axis, ascending, the same for every prompt.
        timesteps : sequence of float
            Timestep of each denoiser call seen, also when the calls were averaged. Values may repeat.
        grid : SpectrogramGrid
            What second and what Hz the spectrogram's columns and rows are.
        spectrogram : numpy.ndarray, shape (prompts, images, bands, frames), optional
            Natural-log mel spectrogram of the result, lowest band first.
        provenance : mapping, optional
            How the run was made; values that JSON can hold (NumPy numbers and paths are converted).
        complete : bool
            False where the run was interrupted.
        levels : sequence of (rows, columns), optional
            Grids of all of the model's cross-attention layers, where not all of them are given: the
            ``"auffusion"`` readout asks which grid is the second-finest.

        Raises
        ------
        MapsError
            If values are not finite, or axes, sizes, tokens or timesteps do not fit together; the message
            names the layer.
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

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save as a zarr 3 folder, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            The folder to make, for example ``"dog.zarr"``; its parent exists.
        overwrite : bool
            Replace saved maps that stand at `path`, once the new ones are written. Anything else there is
            never replaced.

        Raises
        ------
        OutputError
            If `path` exists (and `overwrite` is off, or it holds something else), or cannot be written to.
        """
        write_tree(self.tree, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttentionMaps:
        """Load saved maps into memory; every array is checked and bit-identical to what was saved.

        Raises
        ------
        MapsError
            If there are no maps at `path`, or they are damaged, incomplete or of a newer format; the message
            names the path and the problem.
        """
        maps = cls(read_tree(path))
        try:
            _ = maps.tokens, maps.grid, maps.provenance
        except (AttnVizError, ValueError, LookupError, TypeError) as error:
            raise MapsError(f"{path}: its tokens, grid or provenance cannot be read: {error}") from error
        return maps

    @classmethod
    def merge(cls, maps: Sequence[AttentionMaps]) -> AttentionMaps:
        """Join runs of the same settings (other seeds) along the image axis.

        The settings are the first run's; ``provenance["merged"]`` lists what each run had of its own (its
        seed).

        Raises
        ------
        MapsError
            If the runs differ in anything but seed, number of images, dates, paths and warnings; the message
            names the first field that differs and both values.
        """
        return cls(merge_trees([one.tree for one in maps]))

    # ---- narrowing -----------------------------------------------------------------------------------------

    def select(
        self,
        *,
        layers: str | Iterable[str] | None = None,
        steps: int | Iterable[int] | None = None,
        heads: int | Iterable[int] | None = None,
        encoder: int | None = None,
        branch: str | None = None,
    ) -> AttentionMaps:
        """Narrow the maps. Arrays are shared with the original.

        Parameters
        ----------
        layers : str or iterable of str, optional
            Full or short names. The ``"mean"`` readout is then over these.
        steps, heads : int or iterable of int, optional
            Labels on the step and head axes, from 0; they keep their labels, so they can be narrowed again.
        encoder : int, optional
            Keep the tokens of this text encoder.
        branch : {"conditional", "unconditional"}, optional
            Keep one branch of guidance.

        Raises
        ------
        MapsError
            If one is unknown (the message lists what there is), or its axis was summed out.
        """
        return AttentionMaps(
            select_tree(self.tree, layers=layers, steps=steps, heads=heads, encoder=encoder, branch=branch)
        )

    # ---- tables and files --------------------------------------------------------------------------------

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

    def explore(
        self,
        *,
        audio: str | os.PathLike[str] | np.ndarray | None = None,
        events: pd.DataFrame | None = None,
        scores: pd.DataFrame | None = None,
        phrases: Sequence[Phrase] = (),
        prompt_index: int = 0,
        sample: int = 0,
    ) -> Any:
        """Show the maps in a notebook, to be clicked, hovered and heard: what ``attnviz report`` shows of a run.

        Parameters
        ----------
        audio : str, path-like, or numpy.ndarray of shape (samples,), optional
            The clip: a file, or samples at 16 kHz in [-1, 1] such as ``out.audios[0]``. Without it nothing plays.
        events : pandas.DataFrame, optional
            Event table of the clip (`attnviz.read_events`, ``attnviz.listen(...).events``), drawn as ground truth.
        scores : pandas.DataFrame, optional
            ``attnviz.align(maps, events).table``.
        phrases : sequence of str or (int, int)
            Phrases to offer beside the words, those that events name and those found in the prompt. The first one
            is shown first.
        prompt_index, sample : int
            Which prompt, and which of its samples (images), both from 0.

        Returns
        -------
        attnviz.report.Explorer
            As the last line of a cell it shows itself; ``.save("maps.html")`` writes it as one HTML file.

        Raises
        ------
        MapsError, PromptError
            There is no such prompt, sample or phrase, no word to show, or the clip is too long for 10 MB.
        AudioError
            The audio cannot be read, or is not one channel of finite samples.
        """
        from attnviz.report import explore

        return explore(
            self, audio=audio, events=events, scores=scores, phrases=phrases, prompt_index=prompt_index,
            sample=sample,
        )  # fmt: skip

    def __repr__(self) -> str:
        return display.text(self)

    def _repr_html_(self) -> str:
        return display.html(self)
