"""The bundled listener, or another one, as an embedder."""

from __future__ import annotations

import os
from dataclasses import asdict

import numpy as np

from attnviz.arguments import public
from attnviz.audio import MEL
from attnviz.evaluation.embedder import Embedder, module_digest
from attnviz.listener import Listener
from attnviz.listener.folder import trained_listener
from attnviz.listener.listening import listen, mean_features

_VERSION = 1  # of how clips are embedded
_LEAST = 1e-6  # of a probability, whose logit is finite


@public
def listener_embedder(model: str | os.PathLike[str] | Listener | None = None) -> Embedder:
    """Return the bundled listener as an embedder.

    The embedding is the mean over time of the features that its last layer classifies (192 columns). The logits
    are those of the highest probability of each class over time, averaged over 0.5 s (`Hearing.peaks`), within
    [1e-6, 1 - 1e-6].

    Parameters
    ----------
    model : path-like or Listener, optional
        Folder of another listener, or a loaded one.

    Returns
    -------
    Embedder
        With the name ``listener``, at 16 kHz.

    Raises
    ------
    CheckpointError
        If the listener is missing or damaged.

    Notes
    -----
    The listener knows few sounds and was trained by this project: values such as ``FD-listener`` compare runs with
    each other, and do not compare with any published value.
    """
    listener = trained_listener(model).listener

    def embed(audio: np.ndarray, sampling_rate: int) -> dict[str, np.ndarray]:
        peaks = (
            listen(audio, sampling_rate=sampling_rate, model=listener).peaks.to_numpy().clip(_LEAST, 1 - _LEAST)
        )
        return {"embedding": mean_features(audio, listener), "logits": np.log(peaks) - np.log1p(-peaks)}

    classes = listener.config.classes
    return Embedder(
        name="listener",
        function=embed,
        sampling_rate=MEL.sampling_rate,
        classes=classes,
        digest=module_digest(listener, asdict(listener.config), _VERSION),
        note=f"a listener that knows {len(classes)} sounds: its values do not compare with those of papers",
    )
