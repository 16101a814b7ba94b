"""Evaluate generated audio: distances to reference audio, and scores of classes and captions.

The metrics take arrays of embeddings, probabilities or logits, and return an `Estimate` with a bootstrap interval
and the number of clips that the value needs: :func:`frechet_distance` (FD, FAD), its extrapolation
:func:`frechet_distance_infinity`, :func:`kernel_audio_distance` (KAD), :func:`kernel_inception_distance` (KID),
:func:`inception_score` (IS), :func:`kl_divergence` (KL) and :func:`clap_score`. `Moments` are mean and covariance
of parts of a data set.

:func:`evaluate` embeds folders of audio or runs and computes all metrics that apply. An `Embedder` is a function
from a waveform to an embedding: :func:`listener_embedder` is the bundled one, whose values do not compare with
those of papers; :func:`load_embedder` loads CLAP and PE-A-Frame; any callable can be given.

Folders and arrays enter, numbers leave. May import alignment (its bootstrap), audio, events, pipelines (which
finds checkpoints), sounds and text.
"""

from attnviz.evaluation.cache import EmbeddingCache
from attnviz.evaluation.classes import inception_score, kl_divergence
from attnviz.evaluation.clips import Clip, pair_clips, read_clips
from attnviz.evaluation.embedder import Embedder
from attnviz.evaluation.estimate import Estimate
from attnviz.evaluation.evaluating import EmbeddedClips, embed_clips, evaluate
from attnviz.evaluation.frechet import frechet_distance, frechet_distance_infinity
from attnviz.evaluation.hub_embedders import load_embedder
from attnviz.evaluation.kernels import kernel_audio_distance, kernel_inception_distance, median_distance
from attnviz.evaluation.listener_embedder import listener_embedder
from attnviz.evaluation.matching import clap_score
from attnviz.evaluation.moments import Moments
from attnviz.evaluation.result import Evaluation

__all__ = [
    "Clip",
    "EmbeddedClips",
    "Embedder",
    "EmbeddingCache",
    "Estimate",
    "Evaluation",
    "Moments",
    "clap_score",
    "embed_clips",
    "evaluate",
    "frechet_distance",
    "frechet_distance_infinity",
    "inception_score",
    "kernel_audio_distance",
    "kernel_inception_distance",
    "kl_divergence",
    "listener_embedder",
    "load_embedder",
    "median_distance",
    "pair_clips",
    "read_clips",
]
