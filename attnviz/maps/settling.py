"""Which readout a call means: a name, weights that were given, or those that ship with the bundled model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnviz import bundled
from attnviz.errors import MapsError
from attnviz.maps.fitted import FittedReadout

FITTED = "fitted"
"""Name of the readout that ships with the bundled model."""

BUNDLED = bundled.FOLDER / "readout.json"

Readout = str | FittedReadout
"""``"mean"``, ``"auffusion"``, a layer's name, ``"fitted"``, or a fitted readout."""


def settled(readout: Readout, provenance: Mapping[str, Any]) -> Readout:
    """Return the readout that is meant: for ``"fitted"`` the one that ships with the bundled model.

    Parameters
    ----------
    readout : str or FittedReadout
    provenance : mapping
        Of the maps to be read.

    Raises
    ------
    MapsError
        It is neither a name nor a fitted readout; or ``"fitted"`` is asked for, and the maps are not the bundled
        model's or this copy of attnviz holds no readout.
    """
    if not isinstance(readout, str | FittedReadout):
        raise MapsError(
            f"readout is a {type(readout).__name__}; a name or a FittedReadout is needed. A file is read with "
            "FittedReadout.load."
        )
    if readout != FITTED:
        return readout
    if not is_of_bundled(provenance):
        raise MapsError(
            f"readout='fitted' is of the bundled model, and these maps are of {provenance.get('model')!r} "
            f"(weights {_unet_weights(provenance)}): one model's weights say nothing of another's layers. Fit one "
            "with attnviz.alignment.fit_readout, and give that."
        )
    if not BUNDLED.is_file():
        raise MapsError(
            f"this copy of attnviz holds no fitted readout: there is no file {BUNDLED}. Use readout='mean' or a "
            "layer, or fit one with attnviz.alignment.fit_readout."
        )
    return FittedReadout.load(BUNDLED)


def is_of_bundled(provenance: Mapping[str, Any]) -> bool:
    """Whether maps are of the bundled model, by the digest of its U-Net's weights as well as by name."""
    if provenance.get("model") != bundled.NAME:
        return False
    return _unet_weights(provenance) == bundled.unet_digest(provenance.get("dtype", "float32"))


def _unet_weights(provenance: Mapping[str, Any]) -> Any:
    weights = provenance.get("weights")
    return weights.get("unet") if isinstance(weights, Mapping) else None


def readout_name(readout: Readout) -> str:
    """Return what results call a readout."""
    return readout if isinstance(readout, str) else readout.name
