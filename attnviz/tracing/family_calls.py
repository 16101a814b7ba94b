"""Observe the calls of a pipeline of some family: prompts, the tokens and embeddings they became, seconds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from attnviz.arguments import whole_number
from attnviz.audio import SpectrogramGrid
from attnviz.capture import Changes, PromptConditioning
from attnviz.capture.changes import observed
from attnviz.errors import CaptureError, PromptError
from attnviz.models.families import Family, Segment, setting
from attnviz.text import TokenTable
from attnviz.text.encoded import KeySegment, encoded_table
from attnviz.tracing.keys import Tokens, kept_positions

_LONGEST = 1 << 24
_NO_SETTINGS = {
    *("prompt", "negative_prompt", "guidance_scale", "generator", "latents", "num_inference_steps"),
    *("output_type", "return_dict", "callback_steps"),
}


@dataclass
class FamilyCall:
    """What one call of a pipeline says before its denoiser runs.

    Attributes
    ----------
    arguments : mapping of str to object
        Arguments of the call, defaults included.
    prompts : list of str
    texts : list of str
        Texts that the pipeline made of the prompts, where it writes them into a template.
    ids : list of torch.Tensor
        Inputs of the text encoder, one for each of its calls.
    begun : bool
        Whether the embeddings of the prompts are known.
    log_mels : torch.Tensor or None
        Spectrograms that the pipeline decoded, shape (rows, bands, frames).
    """

    arguments: Mapping[str, Any]
    prompts: list[str]
    texts: list[str] = field(default_factory=list)
    ids: list[torch.Tensor] = field(default_factory=list)
    begun: bool = False
    log_mels: torch.Tensor | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Plain arguments of the call that are recorded under no other name."""
        return {
            name: value
            for name, value in self.arguments.items()
            if name not in _NO_SETTINGS and (value is None or isinstance(value, bool | int | float | str))
        }


class FamilyCalls(Changes):
    """Observe the calls of one pipeline; a context manager.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
    family : Family
    tokens : {"text", "all"}
        Keys that are kept.
    begin : callable
        Called with the call, its conditioning and its token tables, once the prompts are encoded.
    end : callable
        Called at the end of each call, an error or interrupt included.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        tokens: Tokens,
        begin: Callable[[FamilyCall, PromptConditioning, list[TokenTable]], None],
        end: Callable[[FamilyCall], None],
    ) -> None:
        super().__init__()
        self.pipe, self.family, self._tokens = pipe, family, tokens
        self._begin, self._end = begin, end
        self._call: FamilyCall | None = None

    def _make(self) -> None:
        """Observe the call itself, the text encoder, and what makes the embeddings."""
        self._observe_call()
        encoder = getattr(self.pipe, self.family.encoder)
        self._hook(encoder.register_forward_pre_hook, self._before_encoder, with_kwargs=True)
        if self.family.formatted is not None:
            self._observe(self.family.formatted, self._after_formatted)
        for name in self.family.encoders:
            encoded = getattr(self.pipe, name)
            if isinstance(encoded, nn.Module):
                self._hook(encoded.register_forward_hook, self._after_module, with_kwargs=True)
            else:
                self._observe(name, self._after_encoded)
        if self.family.queries.has_freq and getattr(self.pipe, "vae", None) is not None:
            decode = self.pipe.vae.decode
            self._replace(self.pipe.vae, "decode", observed(decode, after=self._after_decode))

    def grid(self, call: FamilyCall, latent_size: tuple[int, int]) -> tuple[SpectrogramGrid, int]:
        """Return the grid of the maps, and its rows and columns per row and column of the latents."""
        seconds = self.family.seconds
        if seconds is None:
            raise CaptureError(
                f"The family {self.family.name} states no seconds=Seconds(rate, samples), so the times of its "
                "columns are not known."
            )
        rows, columns = latent_size
        rate = whole_number("rate", setting(self.pipe, seconds.rate), most=_LONGEST)
        samples = whole_number("samples", setting(self.pipe, seconds.samples), most=_LONGEST)
        asked = call.arguments.get(seconds.asked) if seconds.asked else None
        if isinstance(asked, torch.Tensor):
            asked = float(asked.max())
        if seconds.bands is None:
            grid = SpectrogramGrid(height=None, width=columns, hop_length=samples, sampling_rate=rate)
            factor = 1
        else:
            bands = whole_number("bands", setting(self.pipe, seconds.bands), most=_LONGEST)
            factor = bands // rows
            if factor * rows != bands:
                raise CaptureError(f"{rows} rows of latents do not divide {bands} mel bands evenly.")
            grid = SpectrogramGrid(bands, columns * factor, None, rate, samples, seconds.low, seconds.high)
        if asked is None or asked <= 0:
            return grid, factor
        return SpectrogramGrid(**{**grid.to_dict(), "audio_seconds": min(float(asked), grid.seconds)}), factor

    # The call itself ------------------------------------------------------------------------------------

    def _observe_call(self) -> None:
        """Observe the method that generates."""
        name = self.family.call
        if name != "__call__":
            self._replace(self.pipe, name, self._observed(getattr(self.pipe, name), bound=True))
            return
        # Python looks calls up in the class: this one object gets a class of the same name.
        kind = type(self.pipe)
        own: dict[str, Any] = {"__call__": self._observed(kind.__call__, bound=False)}
        own |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        self._finally(lambda: object.__setattr__(self.pipe, "__class__", kind))
        object.__setattr__(self.pipe, "__class__", type(kind.__name__, (kind,), own))

    def _observed(self, plain: Callable[..., Any], *, bound: bool) -> Callable[..., Any]:
        signature = inspect.signature(plain)

        @functools.wraps(plain)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            self._call = self._checked(dict(list(given.arguments.items())[0 if bound else 1 :]))
            try:
                return plain(*args, **kwargs)
            finally:
                ended, self._call = self._call, None
                self._end(ended)

        return call

    def _checked(self, arguments: dict[str, Any]) -> FamilyCall:
        for name, (wanted, why) in self.family.must_be.items():
            if arguments.get(name, wanted) != wanted:
                raise CaptureError(f"{name}={arguments[name]!r} is not traced, only {name}={wanted!r}: {why}.")
        prompt = arguments.get("prompt")
        if prompt is None:
            raise PromptError(
                "The pipeline was called with prompt_embeds alone, so the word of each key is not known. Pass the "
                "prompt itself."
            )
        return FamilyCall(arguments, [prompt] if isinstance(prompt, str) else list(prompt))

    # What it encodes ------------------------------------------------------------------------------------

    def _observe(self, name: str, after: Callable[[Mapping[str, Any], Any], None]) -> None:
        self._replace(self.pipe, name, observed(getattr(self.pipe, name), after=after))

    def _before_encoder(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._call is not None and not self._call.begun:
            self._call.ids.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).detach().cpu())

    def _after_formatted(self, arguments: Mapping[str, Any], result: Any) -> None:
        if self._call is not None and not self._call.begun:
            self._call.texts.append(result if isinstance(result, str) else result[0])

    def _after_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        names = list(inspect.signature(module.forward).parameters)
        self._after_encoded({**dict(zip(names, args, strict=False)), **kwargs}, output)

    def _after_encoded(self, arguments: Mapping[str, Any], result: Any) -> None:
        call = self._call
        if call is None or call.begun:
            return  # the negative prompt, which comes after the prompt
        call.begun = True
        encoded = arguments.get("prompt")
        if encoded is not None and not call.texts:
            call.texts = [encoded] if isinstance(encoded, str) else list(encoded)
        embeds = self._conditional(call, arguments, result if isinstance(result, torch.Tensor) else result[0])
        tables = self._tables(call, arguments, embeds)
        sizes = [size for segment, size in self._sizes(arguments, 0) if segment.kind != "text"]
        whole = self.family.packed or embeds.shape[1] == len(tables[0])
        first = 0 if whole or self.family.keys[0].kind == "text" else sizes[0]
        waveforms = int(call.arguments.get(self.family.waveforms, 1) or 1)
        conditioning = PromptConditioning(
            embeds.repeat_interleave(waveforms * len(call.prompts) // len(embeds), dim=0),
            None,
            len(call.prompts),
            kept_positions(tables, self._tokens),
            guidance=self.family.guidance,
            first_key=first,
        )
        self._begin(call, conditioning, tables)

    def _conditional(self, call: FamilyCall, arguments: Mapping[str, Any], embeds: torch.Tensor) -> torch.Tensor:
        """Return the rows of the prompts: `embeds` may hold the negative prompts, too."""
        rows = len(call.prompts) * int(arguments.get(self.family.waveforms, 1) or 1)
        if len(embeds) == 2 * rows:
            at = self.family.guidance.index("conditional")
            return embeds[at * rows : (at + 1) * rows]
        if len(embeds) == rows:
            return embeds
        raise CaptureError(
            f"{self.family.encoded} returned {len(embeds)} rows for {rows}, so which of them are the prompt's is "
            "not known."
        )

    def _tables(self, call: FamilyCall, arguments: Mapping[str, Any], embeds: torch.Tensor) -> list[TokenTable]:
        if not call.ids or len(call.ids[0]) != len(call.prompts) or len(call.texts) not in (0, len(call.prompts)):
            raise CaptureError(
                f"The text encoder {self.family.encoder} did not encode the {len(call.prompts)} prompts in one "
                "call, so the word of each key is not known."
            )
        tokenizer = getattr(self.pipe, self.family.tokenizer)
        tables = []
        for number, prompt in enumerate(call.prompts):
            tables.append(
                encoded_table(
                    tokenizer,
                    prompt,
                    call.ids[0][number].tolist(),
                    [KeySegment(segment.kind, size) for segment, size in self._sizes(arguments, number)],
                    encoded=call.texts[number] if call.texts else None,
                    marker=self.family.caption,
                    keys=embeds.shape[1] if self.family.packed else None,
                )
            )
        return tables

    def _sizes(self, arguments: Mapping[str, Any], number: int) -> list[tuple[Segment, int]]:
        """Return each segment and its keys for one prompt: stated, or counted in a mask of the call."""
        counted = []
        for segment in self.family.keys:
            size = segment.size
            if isinstance(size, str):
                size = int(torch.as_tensor(arguments[size])[number].sum())
            counted.append((segment, 0 if size is None else size))
        return counted

    def _after_decode(self, arguments: Mapping[str, Any], result: Any) -> None:
        """Keep the spectrogram, whose last two axes are those of the latents."""
        if self._call is None or not self._call.begun:
            return
        image = (result[0] if isinstance(result, tuple) else result.sample)[:, 0].detach().float().cpu()
        self._call.log_mels = image.transpose(-1, -2) if self.family.queries.order == ("time", "freq") else image


def scheduler_of(pipe: Any, family: Family, call: FamilyCall) -> Any:
    """Return the scheduler of a call: one of its arguments, or an attribute of the pipeline."""
    given = call.arguments.get(family.scheduler)
    return getattr(pipe, family.scheduler) if given is None else given
