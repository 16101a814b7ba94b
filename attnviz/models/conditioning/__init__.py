"""The text conditioning of Auffusion: its encoders, each with an adapter, and how their outputs are joined."""

from attnviz.models.conditioning.adapter import Adapter
from attnviz.models.conditioning.conditioner import ConditionSpec, TextConditioner

__all__ = ["Adapter", "ConditionSpec", "TextConditioner"]
