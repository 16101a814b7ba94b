"""Limits above or below which a sign is a fault, and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attnviz.arguments import public
from attnviz.audio.levels import CLIPPED_MS, INAUDIBLE_DBFS


@dataclass(frozen=True)
class Threshold:
    """The limit of one sign.

    Attributes
    ----------
    value : float
        The limit. A value equal to the limit is not a fault.
    best, worst : float
        Ends of the scale of the sign. The limit lies between them, and faults are on the side of `worst`.
    quantity : str
        Quantity that is compared with the limit, with its unit.
    meaning : str
        Meaning of a fault, and advice.
    source : str
        Origin of the limit.
    """

    value: float
    best: float
    worst: float
    quantity: str
    meaning: str
    source: str

    @property
    def sign(self) -> str:
        """Comparison of a fault with the limit: ``">"`` or ``"<"``."""
        return ">" if self.worst > self.best else "<"

    @public
    def passed(self, value: float) -> bool:
        """Return whether a value is a fault; False for NaN."""
        return value > self.value if self.sign == ">" else value < self.value

    @public
    def position(self, value: float) -> float:
        """Return the position of a value on the scale: -1 at the best end, 0 at the limit, 1 at the worst end."""
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
DISTORTED = "clipped audio"
ARTEFACTS = "reconstruction artefacts"

THRESHOLDS: Mapping[str, Threshold] = MappingProxyType(
    {
        UNIFORM: Threshold(
            0.999, 0.9, 1.0,
            "entropy of the median word's map, as a share of the maximum",
            "The maps of the words are nearly uniform, so they locate the words neither in time nor in frequency. "
            "Examine other layers or steps.",
            "geometry: the value is 0.9991 if a fifth of 1024 cells is 30 % above the rest",
        ),
        NOISY: Threshold(
            0.15, 1.0, 0.0,
            "spatial autocorrelation of the median word's map (Moran's I), finest layers",
            "Adjacent cells are almost uncorrelated, so the maps are noise. Average it out with more denoising "
            "steps, more images, or the mean over layers.",
            "bundled model: at least 0.20 for good maps, at most 0.03 for noise (benchmarks/diagnosis.py)",
        ),
        ALIKE: Threshold(
            0.995, 0.0, 1.0,
            "correlation of the median pair of words' maps (Pearson)",
            "The heat maps of different words look alike: they show the sound or the layer, not the word. Compare "
            "them with the controls of align.",
            "bundled model: two words of one sound reach 0.992 (benchmarks/diagnosis.py)",
        ),
        SINK: Threshold(
            0.95, 0.0, 1.0,
            "share of attention on the start, end and padding tokens",
            "Nearly all attention is on tokens that are not words. The maps of the words may still be correct, on "
            "a small scale.",
            "5 % of the attention remains for all words together",
        ),
        IGNORED: Threshold(
            0.5, 2.0, 0.0,
            "highest attention to the least attended word, relative to the mean of a text token",
            "A word receives little attention everywhere, so its sound is probably missing. Is it a sound that "
            "the model was trained on? Reweight the word, or put it first.",
            "half of a uniform share of the text tokens; peak as in Attend-and-Excite (arXiv 2301.13826)",
        ),
        UNCONDITIONED: Threshold(
            0.02, 0.5, 0.0,
            "difference of attention with and without the prompt (total variation of the two branches)",
            "Attention is the same with and without the prompt, so the prompt does not reach the U-Net. Do the "
            "text encoder and the adapter belong to this model?",
            "2 % of the attention",
        ),
        UNMOVED: Threshold(
            0.005, 0.2, 0.0,
            "guided minus unguided prediction, relative to the unguided (root mean square)",
            "The prediction is the same with and without the prompt. Is the guidance scale above 1, and was the "
            "model trained with conditions?",
            "0.5 % of the prediction",
        ),
        CLIPPED: Threshold(
            0.001, 0.0, 0.05,
            "share of cells at the maximum of the spectrogram, or at or above the ceiling of ln 200",
            "The spectrogram is clipped at its maximum, so loud parts are distorted. Images saturate at a high "
            "guidance scale, and real audio may be clipped.",
            "without clipping, 1 of 262144 cells is the maximum; the limit is a plateau of 260 cells",
        ),
        SILENT: Threshold(
            INAUDIBLE_DBFS, -10.0, -108.0,
            "level of the loudest 0.4 s, estimated from the spectrogram (dBFS)",
            "The sound is inaudible, so its maps have no meaning. Try a lower guidance scale or another seed.",
            "attnviz.audio.levels; in training scenes of the bundled model, 99 % of the frames are above -48",
        ),
        DISTORTED: Threshold(
            CLIPPED_MS, 0.0, 1000.0,
            "audio at full scale (ms)",
            "The loudest parts of the audio are clipped, so they are distorted. Lower the guidance scale or the "
            "weight of a loud word, or try another seed; real audio may have been recorded too loud.",
            "attnviz.audio.levels; bundled model: at most 8 ms in 10 s (benchmarks/diagnosis.py)",
        ),
        ARTEFACTS: Threshold(
            6.0, 0.0, 20.0,
            "mean difference of reconstruction and original, cells within 60 dB of the loudest (dB)",
            "The auto-encoder distorts its input, so artefacts in the sound may come from it and not from the "
            "denoiser.",
            "a factor of two in magnitude",
        ),
    }
)  # fmt: skip
"""Limits by name of the finding, in the order of the checks. ``benchmarks/diagnosis.py`` measures every sign on
maps of a model, and of the same model with random weights."""
