"""Read heat maps and activation curves of phrases and tokens."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps.contents import MapsContents
from attnviz.maps.fitted import FittedReadout
from attnviz.maps.layer import axes_of
from attnviz.maps.readouts import pool_tokens, token_maps
from attnviz.maps.settling import Readout, readout_name, settled
from attnviz.maps.weighing import weighted_maps
from attnviz.text.tokens import KINDS

Phrase = str | tuple[int, int]
"""Words of the prompt, or their character span."""


class ReadableMaps(MapsContents):
    """Maps with methods that compute heat maps and activation curves; base of `AttentionMaps`."""

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
        readout : str or FittedReadout
            Method that combines layers into one map:

            - ``"mean"``: resize every layer to the finest grid and average (after DAAM; `attnviz.maps.readouts`
            lists
              the differences).
            - ``"auffusion"``: average the down and up layers of the second-finest grid, then divide each token by
              its maximum. This is the rule of the Auffusion authors; it gives every word the same maximum.
            - the name of a layer: use that layer only.
            - a `FittedReadout`: use its weights. ``"fitted"`` is the readout of the bundled model.
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
        positions = self._positions(phrase, occurrence, prompt_index)
        return self._heat(positions, str(phrase), prompt_index, sample, readout, pool, grid)

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
        return self._heat(
            self._token(token, prompt_index), f"<{token}>", prompt_index, sample, readout, pool, grid
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

    def _positions(self, phrase: Phrase, occurrence: int | None, prompt_index: int) -> np.ndarray:
        table = self._table(prompt_index)
        found = np.asarray(table.find(phrase, occurrence))
        rows = table.rows.set_index("position")
        if self.encoder is not None:
            found = found[rows.loc[found, "encoder"].to_numpy() == self.encoder]
            if found.size == 0:
                raise MapsError(f"{phrase!r} has no token in encoder {self.encoder}: it was truncated there.")
        missing = found[~np.isin(found, self.positions)]
        if missing.size:
            named = ", ".join(f"{rows.loc[position, 'text']!r} (position {position})" for position in missing)
            words = ", ".join(word.label for word in self.occurrences(prompt_index)) or "none"
            raise MapsError(
                f"{phrase!r} was not stored in full: {named} is missing. Stored words: {words}. "
                "Trace again with more tokens."
            )
        return found

    def _token(self, token: int | str, prompt_index: int) -> np.ndarray:
        table, stored = self._table(prompt_index), self.positions
        if isinstance(token, str):
            if token not in KINDS:
                raise MapsError(
                    f"There is no kind of token {token!r}; kinds are {', '.join(KINDS)}. "
                    "For a word of the prompt use heatmap."
                )
            rows = table.rows
            found = stored[np.isin(stored, rows.loc[rows["kind"] == token, "position"])]
            if found.size == 0:
                raise MapsError(f"No {token} token was stored; trace with tokens='all' to keep them.")
            return found
        if token not in stored:
            raise MapsError(f"Key position {token} was not stored; stored positions: {stored.tolist()}.")
        return np.array([token])

    def _heat(
        self,
        positions: np.ndarray,
        phrase: str,
        prompt_index: int,
        sample: int,
        readout: Readout,
        pool: str,
        grid: str,
    ) -> xr.DataArray:
        if not 0 <= sample < self.images:
            raise MapsError(f"There is no sample {sample}; each prompt has {self.images}, from 0.")
        if grid not in ("finest", "image"):
            raise MapsError(f"grid={grid!r} is unknown; expected 'finest' or 'image'.")
        chosen = settled(readout, self.provenance)
        layers = {name: self[name] for name in self.layers}
        target = None if grid == "finest" else self.grid.cells(self.grid.bands, self.grid.width)
        if isinstance(chosen, FittedReadout):
            read = weighted_maps(
                layers, positions, prompt_index=prompt_index, sample=sample, readout=chosen, pool=pool,
                grid=self.grid, target=target,
            )  # fmt: skip
        else:
            levels = [(int(rows), int(columns)) for rows, columns in self.tree.attrs["levels"]]
            read = token_maps(
                layers, positions, prompt_index=prompt_index, sample=sample, readout=chosen, grid=self.grid,
                target=target, levels=levels,
            )  # fmt: skip
        heat = pool_tokens(read.values, pool).astype(np.float32)
        return xr.DataArray(
            heat if self.grid.has_freq else heat[0],
            dims=("freq", "time") if self.grid.has_freq else ("time",),
            coords=axes_of(read.cells),
            name="heatmap",
            attrs={
                "long_name": read.quantity,
                "phrase": phrase,
                "prompt": self.prompts[prompt_index],
                "image": sample,
                "positions": positions.tolist(),
                "readout": readout_name(chosen),
                "pool": pool,
                "layers": ", ".join(read.layers),  # NetCDF 3 cannot store lists of text
                "stride": list(read.cells.stride),
            },
        )


def activation_of(heat: xr.DataArray, axis: str) -> xr.DataArray:
    """Average a heat map over the other axis, excluding padding."""
    if axis not in ("time", "freq"):
        raise MapsError(f"axis={axis!r} is unknown; expected 'time' or 'freq'.")
    if axis not in heat.dims:
        raise MapsError(
            "These maps have no frequency axis: the model's latents or codes are a sequence in time. Use "
            "axis='time'."
        )
    values = heat.to_numpy().astype(np.float64)
    padding = heat["padding"].to_numpy()
    if axis == "time":
        curve = np.where(padding, np.nan, values.mean(axis=0) if "freq" in heat.dims else values)
    else:
        heard = values[:, ~padding]
        curve = heard.mean(axis=1) if heard.shape[1] else np.full(len(values), np.nan)
    coords = {name: coord for name, coord in heat.coords.items() if coord.dims == (axis,)}
    return xr.DataArray(curve.astype(np.float32), dims=(axis,), coords=coords, name="activation", attrs=heat.attrs)
