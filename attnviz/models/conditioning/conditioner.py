"""All text encoders of an adapter-layout checkpoint, with their adapters: from prompts to keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnviz.arguments import public
from attnviz.errors import CheckpointError, PromptError
from attnviz.io.json_files import as_json
from attnviz.io.storage import files_into
from attnviz.models.conditioning.adapter import Adapter
from attnviz.models.conditioning.encoders import (
    check_vocabulary,
    checked_device,
    hidden_width,
    load_encoder,
    load_tokenizer,
    position_limit,
    quiet,
)
from attnviz.models.conditioning.specs import CONFIG_NAME, ConditionSpec, read_specs
from attnviz.text.tokenize import token_table, tokenize, warn_of_cuts
from attnviz.text.tokens import TokenTable


@public
class TextConditioner(torch.nn.Module):
    """All text encoders of an adapter-layout checkpoint, with their adapters: from prompts to keys.

    Parameters
    ----------
    specs : sequence of ConditionSpec
    encoders : sequence of transformers.PreTrainedModel
    tokenizers : sequence of transformers tokenizers
    adapters : sequence of Adapter

    Attributes
    ----------
    specs : tuple of ConditionSpec
    encoders, adapters : torch.nn.ModuleList
    tokenizers : list

    Raises
    ------
    CheckpointError
        If the numbers of parts differ, or their widths disagree.
    """

    def __init__(
        self,
        specs: Sequence[ConditionSpec],
        encoders: Sequence[PreTrainedModel],
        tokenizers: Sequence[PreTrainedTokenizerBase],
        adapters: Sequence[Adapter],
    ) -> None:
        super().__init__()
        if not specs or not len(specs) == len(encoders) == len(tokenizers) == len(adapters):
            raise CheckpointError(
                f"expected one encoder, tokenizer and adapter per entry; got {len(specs)} entries,"
                f" {len(encoders)} encoders, {len(tokenizers)} tokenizers, {len(adapters)} adapters"
            )
        self.specs = tuple(specs)
        self.encoders = torch.nn.ModuleList(encoders)
        self.tokenizers = list(tokenizers)
        self.adapters = torch.nn.ModuleList(adapters)
        self._limits = [position_limit(encoder) for encoder in encoders]
        for spec, encoder, tokenizer, adapter in zip(specs, encoders, tokenizers, adapters, strict=True):
            _check_widths(spec, encoder, tokenizer, adapter, self.specs[0].cross_attention_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the keys."""
        return next(self.adapters.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parts."""
        return next(self.adapters.parameters()).device

    @property
    def num_keys(self) -> int:
        """Key positions over all encoders (77 each in published checkpoints)."""
        return sum(spec.condition_max_length for spec in self.specs)

    @property
    def cross_attention_dim(self) -> int:
        """Width of the keys."""
        return self.specs[0].cross_attention_dim

    @public
    def encode(
        self,
        prompts: Sequence[str],
        device: str | torch.device | None = None,
        *,
        warn: bool = True,
        allow_empty: bool = False,
    ) -> torch.Tensor:
        """Return the keys of some prompts.

        Each encoder tokenizes and encodes the prompt without padding and without an attention mask. Its last
        hidden states are padded with zeros to ``condition_max_length``; then the adapter is applied. The results
        of the encoders are concatenated along the token axis.

        Parameters
        ----------
        prompts : sequence of str
        device : str or torch.device, optional
            Device on which the encoders run. They must be there already, or be moved there by a hook, as
            diffusers' offload does. Default: their current device.
        warn : bool
            Whether to warn about words that were cut off.
        allow_empty : bool
            Whether to encode an empty text, as start and end tokens only: for negative prompts.

        Returns
        -------
        torch.Tensor
            Shape (len(prompts), `num_keys`, `cross_attention_dim`), of `dtype`. Carries gradients unless
            called under ``torch.no_grad()``.

        Raises
        ------
        PromptError
            If a prompt is empty or not text, or `prompts` is a single string.

        Warns
        -----
        TruncationWarning
            If a prompt is too long for an encoder; lists the words that the encoder does not get in full.

        Notes
        -----
        Differences from the original: an over-long prompt is cut *before* the encoder and keeps its end token. The
        original does not cut for CLIP, which then fails. For other encoders it cuts the hidden states, which then
        lack the end token.
        """
        if isinstance(prompts, str) or not isinstance(prompts, (list, tuple)) or not prompts:
            raise PromptError(f"prompts is a list of one or more texts, such as ['a dog barks']; got {prompts!r}")
        device = self.device if device is None else checked_device(device)
        return torch.cat([self._encode_one(prompt, device, warn, allow_empty) for prompt in prompts])

    def forward(
        self,
        prompts: Sequence[str],
        device: str | torch.device | None = None,
        *,
        warn: bool = True,
        allow_empty: bool = False,
    ) -> torch.Tensor:
        """Call `encode`, so that hooks on the module run (accelerate's offload moves the module to the device)."""
        return self.encode(prompts, device, warn=warn, allow_empty=allow_empty)

    @public
    def token_table(self, prompt: str, *, warn: bool = True) -> TokenTable:
        """Return the token, span and word behind each of the `num_keys` keys of `encode`.

        Parameters
        ----------
        prompt : str
        warn : bool
            Whether to warn about words that were cut off.

        Raises
        ------
        PromptError
            If the prompt is empty or not text.

        Warns
        -----
        TruncationWarning
            If the prompt is too long for an encoder; lists the words that the encoder does not get in full.
        """
        lengths = [spec.condition_max_length for spec in self.specs]
        return token_table(self.tokenizers, prompt, lengths, limits=self._limits, warn=warn)

    @classmethod
    @public
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype | None = None) -> TextConditioner:
        """Load every text encoder, tokenizer and adapter that ``condition_config.json`` lists.

        Parameters
        ----------
        folder : str or Path
            Root of the checkpoint.
        torch_dtype : torch.dtype, optional
            Default: float32.

        Raises
        ------
        CheckpointError
            If a file is missing or malformed, an encoder's class is unknown, a pickle contains more than tensors,
            or widths disagree. The message names the file and what was expected.
        """
        folder = Path(folder)
        specs = read_specs(folder / CONFIG_NAME)
        for spec in specs:
            for name in (spec.text_encoder_name, spec.condition_adapter_name):
                if not (folder / name).is_dir():
                    raise CheckpointError(f"the folder {folder / name} is missing, but {CONFIG_NAME} lists it")
        return cls(
            specs,
            [load_encoder(folder / spec.text_encoder_name, torch_dtype) for spec in specs],
            [load_tokenizer(folder / spec.text_encoder_name) for spec in specs],
            [Adapter.from_pretrained(folder / spec.condition_adapter_name, torch_dtype) for spec in specs],
        ).eval()

    @public
    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's text folders: safetensors, and tokenizers as ``tokenizer.json``.

        Parameters
        ----------
        folder : str or Path
            Root of the checkpoint; created if it does not exist.
        """
        entries = [asdict(spec) for spec in self.specs]
        with files_into(folder) as root:
            (root / CONFIG_NAME).write_bytes(as_json(entries, CONFIG_NAME))
            for spec, encoder, tokenizer, adapter, _ in self._parts():
                with quiet():
                    encoder.save_pretrained(root / spec.text_encoder_name)
                    tokenizer.save_pretrained(root / spec.text_encoder_name)
                adapter.save_pretrained(root / spec.condition_adapter_name)

    def _parts(self) -> Iterator[tuple[ConditionSpec, Any, Any, Any, int | None]]:
        """Yield specification, encoder, tokenizer, adapter and position limit of each encoder."""
        yield from zip(self.specs, self.encoders, self.tokenizers, self.adapters, self._limits, strict=True)

    def _encode_one(self, prompt: str, device: str | torch.device, warn: bool, allow_empty: bool) -> torch.Tensor:
        keys = []
        cuts = []
        for spec, encoder, tokenizer, adapter, limit in self._parts():
            encoding = tokenize(
                tokenizer,
                prompt,
                spec.condition_max_length,
                padded=False,
                limit=limit,
                allow_empty=allow_empty,
            )
            cuts.append(encoding.cut)
            ids = torch.tensor([encoding.ids], dtype=torch.long, device=device)
            hidden = encoder(input_ids=ids).last_hidden_state
            padding = spec.condition_max_length - hidden.shape[1]
            hidden = torch.nn.functional.pad(hidden, (0, 0, 0, padding))
            keys.append(adapter(hidden.to(self.dtype)))
        if warn:
            warn_of_cuts(prompt, cuts)
        return torch.cat(keys, dim=1)


def _check_widths(
    spec: ConditionSpec, encoder: PreTrainedModel, tokenizer: Any, adapter: Adapter, shared: int
) -> None:
    width = hidden_width(encoder)
    if width != spec.condition_dim:
        raise CheckpointError(
            f"{spec.text_encoder_name} gives hidden states {width} wide, but {CONFIG_NAME} states"
            f" condition_dim {spec.condition_dim}: the files of two different checkpoints?"
        )
    given = (adapter.proj.in_features, adapter.proj.out_features)
    wanted = (spec.condition_dim, spec.cross_attention_dim)
    if given != wanted:
        raise CheckpointError(
            f"{spec.condition_adapter_name} maps {given[0]} to {given[1]} channels, but {CONFIG_NAME} states"
            f" {wanted[0]} to {wanted[1]}: the files of two different checkpoints?"
        )
    if spec.cross_attention_dim != shared:
        raise CheckpointError(
            f"every entry of {CONFIG_NAME} needs the same cross_attention_dim, because the keys are concatenated;"
            f" got {shared} and {spec.cross_attention_dim}"
        )
    check_vocabulary(tokenizer, encoder, spec.text_encoder_name)
