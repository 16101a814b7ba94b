"""Strict settings of `attnviz.io.settings`, with errors of trainings."""

from __future__ import annotations

from functools import partial

from attnviz.errors import TrainingError
from attnviz.io import settings
from attnviz.io.settings import plain

__all__ = ["above", "plain", "read_settings", "refuse_unknown", "within"]

read_settings = partial(settings.read_settings, error=TrainingError)
refuse_unknown = partial(settings.refuse_unknown, error=TrainingError)
within = partial(settings.within, error=TrainingError)
above = partial(settings.above, error=TrainingError)
