"""Corpora: run a plan over many clips, on one machine or many, and read the results as one table.

A `Plan` (read from TOML by :func:`read_plan`) states the clips, the model, the settings and what is kept. Its
digest names the output. :func:`run_corpus` computes the shards of the plan that are missing, with local processes,
actors of Ray or arrays of Slurm. Results do not depend on the executor or the number of workers. `Corpus` opens
the results.

Plans, audio and events enter; tables (Parquet), activations (zarr) and maps of a sample leave. May import
alignment, attribution, audio, events, maps, pipelines, sounds, text and tracing. The command line is above it.
"""

from attnviz.errors import CorpusError

try:
    import pyarrow  # noqa: F401
except ModuleNotFoundError as error:
    raise CorpusError("Corpora are kept in Parquet, for which pyarrow is needed: pip install pyarrow.") from error

from attnviz.corpus.aligning import CorpusAlignment
from attnviz.corpus.clips import PlannedClip
from attnviz.corpus.corpus import Corpus, CorpusStatus
from attnviz.corpus.plan import (
    ClipSource,
    ExplainSettings,
    GenerateSettings,
    KeepSettings,
    ModelSettings,
    Plan,
    ScoreSettings,
    read_plan,
)
from attnviz.corpus.results import ClipResult
from attnviz.corpus.running import run_corpus

__all__ = [
    "ClipResult",
    "ClipSource",
    "Corpus",
    "CorpusAlignment",
    "CorpusStatus",
    "ExplainSettings",
    "GenerateSettings",
    "KeepSettings",
    "ModelSettings",
    "Plan",
    "PlannedClip",
    "ScoreSettings",
    "read_plan",
    "run_corpus",
]
