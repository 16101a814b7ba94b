"""Score attention maps against sound events, with controls. No model is loaded.

`align` scores the maps of one clip, and `Alignment.concat` pools clips. `fit_readout` fits weights of layers,
heads and timesteps on clips with known sounds. `profile` scores every layer, denoiser call and head,
`pool_profile` averages profiles over clips, and `layer_lags` measures the time lag of layers. The score functions
can be used alone: for curves, :func:`roc_auc`, :func:`average_precision`, :func:`pearson`, :func:`spearman`,
:func:`partial_correlation`, :func:`pointing` and :func:`onset_error`; for heat maps, :func:`mask_iou`; for frame
scores, with results equal to those of the package sed_scores_eval, :func:`psds` (over all thresholds) and
:func:`segment_f1` (at one threshold).
"""

from attnviz.alignment.aligning import align
from attnviz.alignment.correlation import partial_correlation, pearson, spearman
from attnviz.alignment.fitting import ReadoutFit, fit_readout
from attnviz.alignment.lags import layer_lags
from attnviz.alignment.localization import mask_iou, onset_error, pointing
from attnviz.alignment.pooling import Pooled
from attnviz.alignment.profiling import pool_profile, profile
from attnviz.alignment.psds import PsdsResult, psds
from attnviz.alignment.ranking import average_precision, roc_auc
from attnviz.alignment.result import Alignment
from attnviz.alignment.scored_clips import EventCounts
from attnviz.alignment.segments import SegmentF1Result, segment_f1

__all__ = [
    "Alignment",
    "EventCounts",
    "Pooled",
    "PsdsResult",
    "ReadoutFit",
    "SegmentF1Result",
    "align",
    "average_precision",
    "fit_readout",
    "layer_lags",
    "mask_iou",
    "onset_error",
    "partial_correlation",
    "pearson",
    "pointing",
    "pool_profile",
    "profile",
    "psds",
    "roc_auc",
    "segment_f1",
    "spearman",
]
