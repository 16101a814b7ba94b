"""Times and frequencies of the rows and columns of the spectrogram image, and of coarser grids over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import librosa
import numpy as np

from attnviz.arguments import public
from attnviz.audio.settings import MEL, check_band, finite_number, whole_number
from attnviz.errors import AudioError


@public
@dataclass(frozen=True)
class SpectrogramGrid:
    """Times and frequencies of the rows and columns of the spectrogram image, or of a coarser grid over it.

    A coarser grid divides the image into equal parts: in time, :attr:`seconds`; in frequency, the mel axis from
    `fmin` to `fmax`. The coordinate of a cell is the centre of its part. For the grids of layers, whose cells need
    not divide the image evenly, see :class:`CellGrid`.

    Parameters
    ----------
    height : int or None
        Image rows (mel bands). None: a model without a frequency axis, whose latents or codes are a sequence in
        time; `fmin` and `fmax` then have no meaning.
    width : int
        Image columns (frames of the short-time Fourier transform).
    audio_seconds : float, optional
        Duration of the audio in seconds, at most :attr:`seconds`; columns beyond it are padding. None: the whole
        width is audio.
    sampling_rate : int
        Sampling rate in Hz.
    hop_length : int
        Samples from one column of the image to the next.
    fmin, fmax : float
        Ends of the mel axis, in Hz.
    smear : int
        Columns over which one position of the model is spread. 1: each column has its own. A model that writes `n`
        codebooks with a delay makes a frame at `n` successive positions; a column is their mean, so neighbouring
        columns share all but one of them.

    Raises
    ------
    AudioError
        If a value has the wrong type or is out of range.

    Notes
    -----
    The window of a frame is centred half a hop after the frame's first sample (the audio is mirrored by
    ``(n_fft - hop) / 2`` before the transform), so :meth:`time` gives the centres of the frames.
    The triangle of mel band ``i`` of ``n`` peaks at the fraction ``(i + 1) / (n + 1)`` of the mel axis, not at
    ``(i + 0.5) / n``. The two are less than half a band apart, and agree in the middle of the axis.

    Examples
    --------
    >>> grid = SpectrogramGrid(audio_seconds=10.0)
    >>> grid.time(4)
    array([1.28, 3.84, 6.4 , 8.96])
    >>> grid.freq(4).round()
    array([ 377., 1145., 2492., 5423.])
    >>> int(grid.padding(1024).sum())
    24
    """

    height: int | None = MEL.n_mels
    width: int = 1024
    audio_seconds: float | None = None
    sampling_rate: int = MEL.sampling_rate
    hop_length: int = MEL.hop_length
    fmin: float = MEL.fmin
    fmax: float = MEL.fmax
    smear: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "sampling_rate", "hop_length", "smear", *(["height"] if self.has_freq else [])):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        for name in ("fmin", "fmax"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        if self.has_freq:
            check_band(self.fmin, self.fmax, self.sampling_rate)
        if self.audio_seconds is not None:
            object.__setattr__(self, "audio_seconds", self._checked_length(self.audio_seconds))

    def _checked_length(self, value: float) -> float:
        length = finite_number("audio_seconds", value)
        if length <= 0:
            raise AudioError(f"audio_seconds is {length:g}; it must be above 0.")
        # A duration computed in float32 or by summation may be slightly too long.
        if length > self.seconds * (1 + 1e-6):
            raise AudioError(
                f"audio_seconds is {length:g}, but {self.width} columns hold {self.seconds:g} s. It is a "
                "duration in seconds: were samples or milliseconds given, or audio longer than the image?"
            )
        return min(length, self.seconds)

    @property
    def has_freq(self) -> bool:
        """Whether there is a frequency axis."""
        return self.height is not None

    @property
    def bands(self) -> int:
        """Image rows; 1 where there is no frequency axis."""
        return 1 if self.height is None else self.height

    @property
    def seconds(self) -> float:
        """Duration of the whole width in seconds, padding included."""
        return self.width * self.hop_length / self.sampling_rate

    @public
    def column_seconds(self, columns: int) -> float:
        """Return the duration of one of `columns` equal parts of the width, in seconds."""
        return self.seconds / whole_number("columns", columns)

    @public
    def time(self, columns: int) -> np.ndarray:
        """Return the centres of `columns` equal parts of the width.

        Parameters
        ----------
        columns : int
            Columns of the grid.

        Returns
        -------
        numpy.ndarray
            ``(columns,)`` float64 seconds, ascending.

        Raises
        ------
        AudioError
            If `columns` is not a positive integer.
        """
        columns = whole_number("columns", columns)
        return (np.arange(columns) + 0.5) * self.seconds / columns

    @public
    def freq(self, rows: int) -> np.ndarray:
        """Return the centres of `rows` equal parts of the mel axis.

        Parameters
        ----------
        rows : int
            Rows of the grid.

        Returns
        -------
        numpy.ndarray
            ``(rows,)`` float64 Hz, **ascending**. An image has its highest frequency in row 0: flip it first.

        Raises
        ------
        AudioError
            If `rows` is not a positive integer, or there is no frequency axis.
        """
        if not self.has_freq:
            raise AudioError(
                "this grid has no frequency axis: the model's latents or codes are a sequence in time, so no row "
                "is a band of hertz."
            )
        rows = whole_number("rows", rows)
        low, high = (float(librosa.hz_to_mel(hz, htk=False)) for hz in (self.fmin, self.fmax))
        centres = low + (np.arange(rows) + 0.5) * (high - low) / rows
        return np.asarray(librosa.mel_to_hz(centres, htk=False), dtype=np.float64)

    @public
    def padding(self, columns: int) -> np.ndarray:
        """Return which of `columns` columns are padding.

        Parameters
        ----------
        columns : int
            Columns of the grid.

        Returns
        -------
        numpy.ndarray
            ``(columns,)`` bool; True if the column's centre lies beyond `audio_seconds`.
        """
        times = self.time(columns)
        return np.zeros(times.shape, bool) if self.audio_seconds is None else times > self.audio_seconds

    @public
    def cells(self, rows: int, columns: int, stride: tuple[float, float] | None = None) -> CellGrid:
        """Return the grid of a layer over this image.

        Parameters
        ----------
        rows, columns : int
            Rows and columns of the layer.
        stride : (float, float), optional
            Mel bands and image columns from one cell to the next. None: the cells divide the image evenly.

        Raises
        ------
        AudioError
            If no stride is given and the cells do not divide the image evenly, or the stride does not fit the
            number of cells.
        """
        counts = whole_number("rows", rows), whole_number("columns", columns)
        sizes = self.bands, self.width
        if stride is None:
            if any(size % count for size, count in zip(sizes, counts, strict=True)):
                raise AudioError(
                    f"{rows} x {columns} cells do not divide the image of {self.bands} x {self.width} evenly, so "
                    "their times and frequencies are not known without a stride (mel bands and image columns from "
                    "one cell to the next)."
                )
            stride = (self.bands / rows, self.width / columns)
        for name, size, count, step in zip(("rows", "columns"), sizes, counts, stride, strict=True):
            # The last cell may extend beyond the image, or leave a part of it uncovered, by less than one cell.
            if not (step > 0 and abs(count * step - size) < step):
                raise AudioError(
                    f"{count} {name} with a stride of {step:g} cover {count * step:g} of the image's {size}; they "
                    "must cover it to within one cell. Was the stride given in another unit?"
                )
        return CellGrid(self, (int(rows), int(columns)), (float(stride[0]), float(stride[1])))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary of JSON values; `smear` only if it is not 1."""
        return {name: value for name, value in asdict(self).items() if name != "smear" or value != 1}

    @classmethod
    @public
    def from_dict(cls, values: Mapping[str, Any]) -> SpectrogramGrid:
        """Return the grid from the dictionary of :meth:`to_dict`.

        Raises
        ------
        AudioError
            If `values` is not a mapping, or a field is missing, unknown or invalid.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping):
            raise AudioError(f"a grid is read from a mapping with {names}; got a {type(values).__name__}.")
        if "sample_rate" in values and "sampling_rate" not in values:  # its name in files of earlier versions
            values = {"sampling_rate" if name == "sample_rate" else name: value for name, value in values.items()}
        missing = [name for name in names if name not in values and name != "smear"]
        unknown = [str(name) for name in values if name not in names]
        if missing or unknown:
            raise AudioError(f"a grid has exactly the fields {names}; missing: {missing}, unknown: {unknown}.")
        return cls(**values)


@dataclass(frozen=True)
class CellGrid:
    """The cells of a layer over a spectrogram image; made by :meth:`SpectrogramGrid.cells`.

    Convolutions with a stride of 2 round up: 61 columns become 31, and then 16. Cell `i` of a layer covers the
    image columns from ``i * stride`` on, whatever the number of cells; the last cell may extend beyond the image's
    end. Rows count from the top of the image, so the lowest row may extend below `fmin`.

    Attributes
    ----------
    grid : SpectrogramGrid
        Grid of the image.
    shape : (int, int)
        Rows and columns.
    stride : (float, float)
        Mel bands and image columns from one cell to the next.

    Examples
    --------
    >>> cells = SpectrogramGrid(width=976).cells(4, 16, (64, 64))
    >>> cells.time[-2:].round(2)
    array([9.28, 9.92])
    >>> bool(cells.padding[-1])  # its centre lies beyond the 9.76 s
    True
    """

    grid: SpectrogramGrid
    shape: tuple[int, int]
    stride: tuple[float, float]

    @property
    def column_seconds(self) -> float:
        """Seconds from one column to the next."""
        return self.seconds / self.shape[1]

    @property
    def seconds(self) -> float:
        """Duration of all columns in seconds; the last column may extend beyond the image."""
        return self.shape[1] * self.stride[1] * self.grid.hop_length / self.grid.sampling_rate

    @property
    def time(self) -> np.ndarray:
        """Centres of the columns, ``(columns,)`` float64 seconds, ascending."""
        return (np.arange(self.shape[1]) + 0.5) * self.seconds / self.shape[1]

    @property
    def time_edges(self) -> np.ndarray:
        """Edges of the columns, ``(columns + 1,)`` float64 seconds."""
        return np.linspace(0.0, self.seconds, self.shape[1] + 1)

    @property
    def freq(self) -> np.ndarray:
        """Centres of the rows, ``(rows,)`` float64 Hz, ascending; a centre below `fmin` is set to `fmin`."""
        low, high = (float(librosa.hz_to_mel(hz, htk=False)) for hz in (self.grid.fmin, self.grid.fmax))
        rows = self.shape[0]
        bottom = self.bottom
        centres = low + (high - low) * bottom + (np.arange(rows) + 0.5) * ((high - low) * (1 - bottom)) / rows
        return np.asarray(librosa.mel_to_hz(np.maximum(centres, low), htk=False), dtype=np.float64)

    @property
    def bottom(self) -> float:
        """Lower edge of the lowest row, as a fraction of the mel axis; negative if the row extends below it."""
        return 1 - self.shape[0] * self.stride[0] / self.grid.bands

    @property
    def band_edges(self) -> np.ndarray:
        """Edges of the rows, ``(rows + 1,)`` float64 mel bands, from the lowest row up."""
        return self.grid.bands - self.stride[0] * np.arange(self.shape[0], -1, -1, dtype=np.float64)

    @property
    def frame_edges(self) -> np.ndarray:
        """Edges of the columns, ``(columns + 1,)`` float64 image columns."""
        return self.stride[1] * np.arange(self.shape[1] + 1, dtype=np.float64)

    @property
    def padding(self) -> np.ndarray:
        """Columns whose centre lies beyond the audio, ``(columns,)`` bool."""
        end = self.grid.seconds if self.grid.audio_seconds is None else self.grid.audio_seconds
        return self.time > end
