"""Check arrays of embeddings, logits and probabilities."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from attnviz.errors import EvaluationError
from attnviz.wording import counted

Given = Literal["logits", "probabilities"]
"""What an array of class scores has: logits, or probabilities in [0, 1]."""

_MOST_NAMED = 5
_LARGEST = 1e70  # fourth powers, as of distances of covariances, are finite
_SUM_TOLERANCE = 1e-3  # of probabilities that were rounded to float16


def checked_rows(name: str, values: Any, *, least: int = 1) -> np.ndarray:
    """Return a finite array of shape (clips, columns) as float64.

    Raises
    ------
    EvaluationError
        If the array has another shape, fewer rows than `least`, or values that are not finite numbers. The message
        names the first rows with such values.
    """
    try:
        plain = values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        rows = plain.astype(np.float64) if plain.dtype.kind in "fiub" else None
        of = f" of {plain.dtype}"
    except (TypeError, ValueError, OverflowError):
        rows, of = None, ""
    if rows is None:
        raise EvaluationError(f"{name} is not an array of real numbers, but {type(values).__name__}{of}.")
    if np.ma.is_masked(values):
        raise EvaluationError(
            f"{name} has masked values; leave these clips out: values[~values.mask.any(axis=1)]."
        )
    if rows.ndim != 2 or not rows.shape[1]:
        raise EvaluationError(
            f"{name} has the shape {rows.shape}; expected (clips, columns), a row for each clip."
        )
    if len(rows) < least:
        raise EvaluationError(f"{name} has {counted(len(rows), 'clip')}; at least {least} are needed.")
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        more = ", ..." if broken.size > _MOST_NAMED else ""
        raise EvaluationError(
            f"{name} has values that are NaN or infinite in {broken.size} of {counted(len(rows), 'clip')}, in the "
            f"rows {', '.join(map(str, broken[:_MOST_NAMED]))}{more}."
        )
    if rows.size and (largest := float(np.abs(rows).max())) > _LARGEST:
        raise EvaluationError(
            f"{name} has values up to {largest:.3g}; above {_LARGEST:g}, their powers are no numbers any more. Is "
            "an embedding not normalised? Divide both sets by the same number."
        )
    return rows


def checked_pair(evaluated: ArrayLike, reference: ArrayLike, *, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of clips with the same number of columns.

    Raises
    ------
    EvaluationError
        See `checked_rows`; or if the numbers of columns differ.
    """
    first = checked_rows("evaluated", evaluated, least=least)
    second = checked_rows("reference", reference, least=least)
    check_columns(first.shape[1], second.shape[1])
    return first, second


def check_columns(evaluated: int, reference: int) -> None:
    """Raise if two sets have different numbers of columns."""
    if evaluated != reference:
        raise EvaluationError(
            f"evaluated has {counted(evaluated, 'column')} and reference {reference}; both must come "
            "from the same embedder."
        )


def checked_matches(first_name: str, first: ArrayLike, second_name: str, second: ArrayLike) -> list[np.ndarray]:
    """Return two arrays whose rows are pairs.

    Raises
    ------
    EvaluationError
        See `checked_rows`; or if the shapes differ.
    """
    rows = [checked_rows(first_name, first), checked_rows(second_name, second)]
    if rows[0].shape != rows[1].shape:
        raise EvaluationError(
            f"{first_name} has the shape {rows[0].shape} and {second_name} {rows[1].shape}; row i of one is "
            "paired with row i of the other, so the shapes must be equal."
        )
    return rows


def checked_units(units: ArrayLike | None, clips: int) -> np.ndarray:
    """Return the index of each clip's unit, from 0; by default, every clip is a unit of its own.

    Raises
    ------
    EvaluationError
        If there is not one unit for each clip.
    """
    if units is None:
        return np.arange(clips)
    try:
        labels = np.asarray(units)
        index = np.unique(labels.astype(str), return_inverse=True)[1].reshape(-1) if labels.ndim == 1 else None
    except (TypeError, ValueError):
        index = None
    if index is None:
        raise EvaluationError(
            f"units is a {type(units).__name__}; a text or number for each clip is needed, in a list or an array "
            "of shape (clips,)."
        )
    if len(index) != clips:
        raise EvaluationError(
            f"units has {counted(len(index), 'value')}; one for each of {counted(clips, 'clip')} is needed."
        )
    return index


def class_probabilities(name: str, values: Any, given: str, convention: str = "softmax") -> np.ndarray:
    """Return probabilities of classes, `(clips, classes)`, from logits or as they are.

    Raises
    ------
    EvaluationError
        See `checked_rows`; or if probabilities are outside [0, 1], or do not sum to 1 with ``"softmax"``.
    """
    if given not in ("logits", "probabilities"):
        raise EvaluationError(f"given is {given!r}; expected 'logits' or 'probabilities'.")
    rows = checked_rows(name, values)
    if given == "logits":
        return softmax(rows, axis=1) if convention == "softmax" else expit(rows)
    if rows.min() < 0 or rows.max() > 1:
        raise EvaluationError(
            f"{name} has values from {rows.min():g} to {rows.max():g}; probabilities are in [0, 1]. For logits, "
            "give given='logits'."
        )
    off = np.abs(rows.sum(axis=1) - 1)
    if convention == "softmax" and off.max() > _SUM_TOLERANCE:
        raise EvaluationError(
            f"the probabilities of {name} sum to {rows[off.argmax()].sum():g} in row {off.argmax()}, not to 1. "
            "Are they of several labels for each clip (sigmoid)? Then give logits."
        )
    return rows
