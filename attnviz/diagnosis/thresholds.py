"""From which value on a sign counts as a fault, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attnviz.audio.levels import INAUDIBLE_DBFS


@dataclass(frozen=True)
class Threshold:
    """The limit of one sign.

    Attributes
    ----------
    value : float
        The limit; the value itself is no fault.
    best, worst : float
        Ends of the sign's scale, between which the limit lies. A fault is on the side of `worst`.
    quantity : str
        What is compared with the limit, and in what unit.
    meaning : str
        What a fault means, and what to look at.
    source : str
        Where the limit comes from.
    """

    value: float
    best: float
    worst: float
    quantity: str
    meaning: str
    source: str

    @property
    def sign(self) -> str:
        """How a fault compares with the limit: ``">"`` or ``"<"``."""
        return ">" if self.worst > self.best else "<"

    def passed(self, value: float) -> bool:
        """Say whether a value is a fault. NaN is none."""
        return value > self.value if self.sign == ">" else value < self.value

    def position(self, value: float) -> float:
        """Return where a value stands: -1 at the best end, 0 at the limit, 1 at the worst end."""
        end = self.worst if self.passed(value) else self.best
        share = min(abs(value - self.value) / abs(end - self.value), 1.0)
        return share if self.passed(value) else -share


UNIFORM = "uniform attention"
NOISY = "noisy attention"
ALIKE = "all words alike"
SINK = "attention sink"
IGNORED = "word ignored"
UNCONDITIONED = "conditioning without effect"
UNMOVED = "prediction without guidance"
CLIPPED = "clipped spectrogram"
SILENT = "silent spectrogram"
ARTEFACTS = "reconstruction artefacts"

THRESHOLDS: Mapping[str, Threshold] = MappingProxyType(
    {
        UNIFORM: Threshold(
            0.999, 0.9, 1.0,
            "entropy of the median word's map, as a share of the maximum",
            "The words' maps are nearly the same everywhere: they say neither when nor at which frequencies. Read "
            "other layers or steps before the maps are trusted.",
            "geometry: of 1024 cells, a fifth 30 % above the rest has 0.9991",
        ),
        NOISY: Threshold(
            0.15, 1.0, 0.0,
            "spatial autocorrelation of the median word's map (Moran's I), finest layers",
            "Neighbouring cells have little to do with each other: the maps are speckle. More denoising steps, "
            "more images, or a mean over layers average it out.",
            "bundled model: of good maps 0.33 at least, of maps of noise 0.03 at most (benchmarks/diagnosis.py)",
        ),
        ALIKE: Threshold(
            0.995, 0.0, 1.0,
            "correlation of the median pair of words' maps (Pearson)",
            "The heat maps of different words look alike: what they show is of the sound, or of the layer, not of "
            "the word. Compare them with align's controls.",
            "bundled model: two words of one sound reach 0.992 (benchmarks/diagnosis.py)",
        ),
        SINK: Threshold(
            0.95, 0.0, 1.0,
            "share of attention on the start, end and padding tokens",
            "Nearly all attention rests on tokens that are no words; the words share what is left. Their maps may "
            "still be right, on a small scale.",
            "one part in twenty would be left for all words together",
        ),
        IGNORED: Threshold(
            0.5, 2.0, 0.0,
            "highest attention to the least attended word, in means of a text token",
            "A word is attended to nowhere: it is likely not heard either. Is it a sound the model knows? "
            "Re-weight it, or put it first.",
            "half of an even share among the prompt's text tokens; the peak as in Attend-and-Excite (2301.13826)",
        ),
        UNCONDITIONED: Threshold(
            0.02, 0.5, 0.0,
            "attention that moves between keys with the prompt (total variation of the two branches)",
            "Attention is the same with and without the prompt: the prompt does not reach the U-Net. Are the text "
            "encoder and the adapter those of this model?",
            "two parts in a hundred of the attention",
        ),
        UNMOVED: Threshold(
            0.005, 0.2, 0.0,
            "guided minus unguided prediction, relative to the unguided (root mean square)",
            "The prediction is the same with and without the prompt. Is the guidance scale above 1, and was the "
            "model trained with conditions?",
            "half a percent of the prediction",
        ),
        CLIPPED: Threshold(
            0.001, 0.0, 0.05,
            "share of cells at the spectrogram's highest value, or beyond the ceiling of ln 200",
            "The spectrogram has a plateau: it was cut off at a highest value, so its loud parts are distorted. A "
            "high guidance scale saturates images; real audio may be clipped.",
            "unclipped, one cell of 262144 is the highest; a thousandth is a plateau of 260",
        ),
        SILENT: Threshold(
            INAUDIBLE_DBFS, -10.0, -108.0,
            "level of the loudest 0.4 s, estimated from the spectrogram (dBFS)",
            "Nothing is heard: maps over silence say nothing. Try a lower guidance scale, or another seed.",
            "attnviz.audio.levels; sounds of the bundled model's training scenes: 99 % of the frames above -48",
        ),
        ARTEFACTS: Threshold(
            6.0, 0.0, 20.0,
            "mean difference of reconstruction and original, cells within 60 dB of the loudest (dB)",
            "The auto-encoder does not give back what it was given: what is odd in the sound may be its doing, "
            "not the denoiser's.",
            "a factor of two in magnitude",
        ),
    }
)  # fmt: skip
"""Limits by the name of the finding, in the order they are looked at. ``benchmarks/diagnosis.py`` measures every
sign on a model's own maps, and on those of the same model with random weights."""
