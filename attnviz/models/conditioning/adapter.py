"""The condition adapter: map hidden states of a text encoder to the keys' space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from attnviz.arguments import public, whole_number
from attnviz.errors import CheckpointError
from attnviz.io.json_files import as_json
from attnviz.io.storage import files_into
from attnviz.io.weights import read_json, read_weights

WEIGHT_FILES = ("condition_adapter.safetensors", "condition_adapter.pt", "condition_adapter.bin")
_WIDEST = 65_536


@public
class Adapter(torch.nn.Module):
    """``LayerNorm(Linear(x))``.

    It is applied *after* the hidden states were padded with zeros, so a padded position becomes the adapter's
    output for zeros, ``LayerNorm(bias)``, and not zero.

    Parameters
    ----------
    condition_dim : int
        Width of the encoder's hidden states.
    cross_attention_dim : int
        Width of the U-Net's keys.

    Attributes
    ----------
    config : dict
        Content of the folder's ``config.json``, kept for `save_pretrained`.

    Notes
    -----
    Source: Auffusion (arXiv 2401.01044), published checkpoints ``condition_adapter_i``.
    """

    def __init__(self, condition_dim: int, cross_attention_dim: int) -> None:
        super().__init__()
        for name, width in (("condition_dim", condition_dim), ("cross_attention_dim", cross_attention_dim)):
            whole_number(name, width, most=_WIDEST, error=CheckpointError)
        self.proj = torch.nn.Linear(condition_dim, cross_attention_dim)
        self.norm = torch.nn.LayerNorm(cross_attention_dim)
        self.config: dict[str, Any] = {
            "condition_dim": condition_dim,
            "cross_attention_dim": cross_attention_dim,
        }

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return keys (..., cross_attention_dim) for hidden states (..., condition_dim)."""
        return self.norm(self.proj(hidden_states))

    @classmethod
    @public
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype | None = None) -> Adapter:
        """Load ``config.json`` and the weights (``.safetensors`` or ``.pt``) of a ``condition_adapter_i`` folder.

        Parameters
        ----------
        folder : str or Path
        torch_dtype : torch.dtype, optional
            Default: float32.

        Raises
        ------
        CheckpointError
            If a file is missing or malformed, or the shapes of the weights differ from the configuration.
        """
        folder = Path(folder)
        config = read_json(folder / "config.json", "the adapter's condition_dim and cross_attention_dim")
        fields: dict[str, Any] = config if isinstance(config, dict) else {}
        sizes: list[Any] = [fields.get(name) for name in ("condition_dim", "cross_attention_dim")]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise CheckpointError(
                f"{folder / 'config.json'} does not give condition_dim and cross_attention_dim as positive"
                f" integers: got {sizes[0]!r} and {sizes[1]!r}"
            )
        state = read_weights(folder, WEIGHT_FILES, "the adapter's proj.* and norm.*")
        adapter = cls(*sizes)
        wanted = {name: tuple(value.shape) for name, value in adapter.state_dict().items()}
        given = {name: tuple(value.shape) for name, value in state.items()}
        if wanted != given:
            raise CheckpointError(
                f"the weights in {folder} are {given}, but its config.json requires {wanted}:"
                " the files of two different checkpoints?"
            )
        adapter.load_state_dict(state)
        adapter.config = dict(fields)
        return adapter.to(torch_dtype or torch.float32).eval()

    @public
    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``condition_adapter.safetensors``."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with files_into(folder) as place:
            (place / "config.json").write_bytes(as_json(self.config, "config.json"))
            (place / WEIGHT_FILES[0]).write_bytes(save(state, metadata={"format": "pt"}))
