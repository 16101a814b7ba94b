"""SHA-256 digests of saved arrays and attributes, because zarr replaces a missing chunk by fill values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Checksums = dict[str, Any]
"""Digest of the attributes of the root, and of each array; of an array of layers, the digest of each layer."""

HOW_TO_READ = "how_to_read"
"""Attribute of the root for people, which is not among those that the digest covers."""


def digest_of(value: object) -> str:
    """Return the digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def array_digest(values: np.ndarray, dims: Sequence[Any], attrs: Mapping[Any, Any], *facts: object) -> str:
    """Return the digest of an array with its axes, its attributes and further facts."""
    described: list[object] = [*facts, list(dims), dict(attrs)]
    if values.dtype.kind not in "biuf":
        return digest_of([*described, values.tolist()])
    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(digest_of([*described, plain.dtype.str, plain.shape]).encode())
    digest.update(plain.data)
    return digest.hexdigest()
