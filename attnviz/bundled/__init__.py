"""The model that ships with the package: a small Auffusion, trained on real recordings of ten sounds."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Where it is: a checkpoint in the adapter layout, with a listener beside it."""

NAME = "bundled"
"""What it is called in provenance."""
