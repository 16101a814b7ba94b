"""Resolve the readout of a call: a name, a fitted readout, or the fitted readout of the bundled model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnviz import bundled
from attnviz.errors import MapsError
from attnviz.maps.fitted import FittedReadout
from attnviz.maps.sharp import SHARP, SharpReadout

FITTED = "fitted"
"""Name of the readout distributed with the bundled model."""

BUNDLED = bundled.FOLDER / "readout.json"

Readout = str | FittedReadout | SharpReadout
"""``"mean"``, ``"auffusion"``, the name of a layer, ``"fitted"``, ``"sharp"``, or a fitted or sharp readout."""


def settled(readout: Readout, provenance: Mapping[str, Any]) -> Readout:
    """Resolve ``"fitted"`` and ``"sharp"`` for the model of some maps, and return other readouts unchanged.

    Parameters
    ----------
    readout : str, FittedReadout or SharpReadout
    provenance : mapping
        Provenance of the maps.

    Raises
    ------
    MapsError
        If `readout` is neither a name nor a fitted readout, or if it is ``"fitted"`` and the maps do not come from
        the bundled model or the readout is not installed.
    """
    if not isinstance(readout, str | FittedReadout | SharpReadout):
        raise MapsError(
            f"readout is a {type(readout).__name__}; expected a name, a FittedReadout or a SharpReadout. Read a "
            "file with FittedReadout.load."
        )
    if readout == SHARP:
        fitted = is_of_bundled(provenance) and _is_attention(provenance) and BUNDLED.is_file()
        return SharpReadout(FittedReadout.load(BUNDLED) if fitted else "mean")
    if readout != FITTED:
        return readout
    if not is_of_bundled(provenance):
        raise MapsError(
            f"readout='fitted' applies to the bundled model only; these maps are of {provenance.get('model')!r} "
            f"(weights {_unet_weights(provenance)}). Fit a readout for this model with "
            "attnviz.alignment.fit_readout."
        )
    if not BUNDLED.is_file():
        raise MapsError(
            f"this installation has no fitted readout: {BUNDLED} does not exist. Use readout='mean' or a "
            "layer, or fit a readout with attnviz.alignment.fit_readout."
        )
    return FittedReadout.load(BUNDLED)


def is_of_bundled(provenance: Mapping[str, Any]) -> bool:
    """Return whether maps come from the bundled model, by its name and the digest of its U-Net weights."""
    if provenance.get("model") != bundled.NAME:
        return False
    return _unet_weights(provenance) == bundled.unet_digest(provenance.get("dtype", "float32"))


def _is_attention(provenance: Mapping[str, Any]) -> bool:
    """Return whether maps are of attention, for which the bundled readout was fitted."""
    attribution = provenance.get("attribution")
    return not isinstance(attribution, Mapping) or attribution.get("method", "attention") == "attention"


def _unet_weights(provenance: Mapping[str, Any]) -> Any:
    weights = provenance.get("weights")
    return weights.get("unet") if isinstance(weights, Mapping) else None


def readout_name(readout: Readout) -> str:
    """Return the name of a readout used in results."""
    return readout if isinstance(readout, str) else readout.name
