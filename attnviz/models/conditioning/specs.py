"""``condition_config.json``: the text encoders and adapters of an adapter-layout checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from attnviz.errors import CheckpointError
from attnviz.io.weights import read_json

CONFIG_NAME = "condition_config.json"


@dataclass(frozen=True)
class ConditionSpec:
    """One entry of ``condition_config.json``.

    Attributes
    ----------
    text_encoder_name, condition_adapter_name : str
        Folders in the checkpoint.
    condition_max_length : int
        Number of key positions of this encoder.
    condition_dim, cross_attention_dim : int
        Width of the encoder's hidden states, and of the keys.
    condition_type, pretrained_model_name_or_path : str
        Origin of the encoder; stored, not used.
    """

    text_encoder_name: str
    condition_adapter_name: str
    condition_max_length: int
    condition_dim: int
    cross_attention_dim: int
    condition_type: str = ""
    pretrained_model_name_or_path: str = ""


def read_specs(path: Path) -> list[ConditionSpec]:
    """Read the entries of a ``condition_config.json``.

    Raises
    ------
    CheckpointError
        If the file is missing or malformed. The message names the entry and the field.
    """
    names = [field.name for field in fields(ConditionSpec)]
    expected = f"a list with one object per text encoder ({', '.join(names)})"
    content = read_json(path, expected)
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise CheckpointError(f"{path} is not {expected}; got {type(content).__name__} {str(content)[:80]!r}")
    specs = []
    for i, entry in enumerate(content):
        for field in fields(ConditionSpec):
            value = entry.get(field.name, field.default)
            if field.type == "int":
                ok = isinstance(value, int) and not isinstance(value, bool) and value > 0
            else:
                ok = isinstance(value, str)
            if ok and field.name.endswith("_name"):  # a folder name, never a path that leaves the checkpoint
                ok = value not in ("", ".", "..") and Path(value).name == value
            if not ok:
                got = repr(entry[field.name]) if field.name in entry else "missing"
                name = "the name of a folder beside it" if field.name.endswith("_name") else "text"
                wanted = "a positive integer" if field.type == "int" else name
                raise CheckpointError(f"{path}, entry {i}: {field.name} is {got}; expected {wanted}")
        specs.append(ConditionSpec(**{name: entry[name] for name in names if name in entry}))
    return specs
