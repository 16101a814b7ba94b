"""One way to edit with, and to look into, each model: where its rows, words and columns are, written out."""

from __future__ import annotations

import re

import torch
from families.conftest import CALLS

from attnviz.editing import refine, reweight, swap

# Tango and TangoFlux twice: as their authors publish them, and as `attnviz.load` reads their folders.
LOADED = {"TangoPipeline": "tango", "TangoFluxPipeline": "tango-flux"}
LATENTS = [*CALLS, "tango", "tango-flux", *LOADED]
CODES = ["musicgen", "musicgen-melody"]
NAMES = [*LATENTS, *CODES]
# Of each model: the text attention; the attention of the audio to itself (None: the same modules, joint); where
# source and target stand in a conditional call; the query of column 0 (None: that of the text's end).
SITES = {
    "audioldm2": (r".*attentions\.(2|5|8|11)\.transformer_blocks\.0\.attn2", r".*\.attn1", (2, 3), 0),
    "stable-audio": (r".*\.attn2", r".*\.attn1", (2, 3), 1),
    "stable-audio-3": (r".*\.cross_attn", r".*\.self_attn", (2, 3), 3),
    "longcat-audio-dit": (r".*\.cross_attn", r".*\.self_attn", (0, 1), 0),
    "ace-step": (r".*\.cross_attn", r".*\.self_attn", (0, 1), 0),
    "tango": (r".*\.attn2", r".*\.attn1", (2, 3), 0),
    "tango-flux": (r".*\.attn", None, (2, 3), None),
    "musicgen": (r".*\.encoder_attn", r".*layers\.\d+\.self_attn", (0, 1), 0),
    "musicgen-melody": (r".*\.self_attn", None, (0, 1), None),
}
CHROMA = 7


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Editable:
    """A model, its edits and its words."""

    def __init__(self, name, made):
        self.name, self.made, self.loaded = LOADED.get(name, name), made, name in LOADED
        text, own, self.rows, self.first = SITES[self.name]
        self.joint = own is None
        self.text_sites, self.self_sites = self._found(text), [] if own is None else self._found(own)
        # Of a U-Net, the coarsest level: probabilities of all positions take long.
        coarsest = [site for site in self.self_sites if "mid_block" in site[0]]
        self.sites = self.text_sites + (coarsest or self.self_sites)

    @property
    def model(self):
        return getattr(self.made, "pipe", None) or self.made.model

    @property
    def pipe(self):
        """What the user passes: for the published Tango the class around the model, which has the scheduler."""
        return self.made if self.published else self.model

    @property
    def published(self):
        return self.name.startswith("tango") and not self.loaded

    @property
    def denoiser(self):
        return next(
            getattr(self.model, part) for part in ("unet", "transformer", "decoder") if hasattr(self.model, part)
        )

    def _found(self, pattern):
        found = [(path, module) for path, module in self.denoiser.named_modules() if re.fullmatch(pattern, path)]
        assert found
        return found

    @property
    def call(self):
        if self.name in CODES:
            # Of random weights all codes are nearly as likely; a low temperature tells them apart.
            return {"processor": self.made.tokenizer, "max_new_tokens": 8, "temperature": 0.02}
        if self.published:
            return {"num_steps": 2} if self.name == "tango" else {"num_inference_steps": 2, "duration": 1.0}
        given = {"duration": 1.0} if self.name == "tango-flux" else CALLS.get(self.name, {})
        steps = 1 if self.name == "audioldm2" else 2  # its steps take longest
        return {**given, "num_inference_steps": steps, "output_type": "latent"}

    def edit(self, function, *prompts, **settings):
        """Edit, and return the rows of source and target (latents or waveforms), and the edit."""
        edited = function(self.pipe, *prompts, **{"generator": seeded(), **self.call, **settings})
        output = edited.output
        return torch.as_tensor(getattr(output, "audios", output)), edited

    def swap(self, source, target, **settings):
        return self.edit(swap, source, target, **settings)

    def refine(self, source, target, **settings):
        return self.edit(refine, source, target, **settings)

    def reweight(self, prompt, weights, **settings):
        return self.edit(reweight, prompt, weights, **settings)

    def keys(self, prompt, word):
        """Key positions of a word, from the tokenizer's own offsets."""
        tokenizer = self.model.tokenizer_2 if self.name == "audioldm2" else getattr(self.model, "tokenizer", None)
        tokenizer, text, first = tokenizer or self.made.tokenizer, prompt, 0
        if self.name == "longcat-audio-dit":
            text, word = text.lower(), word.lower()
        elif self.name == "ace-step":  # packed: lyrics, one timbre, and the prompt in its template
            text, lyrics = self.model._format_prompt(prompt, lyrics="la la", audio_duration=2.0)
            first = len(tokenizer(lyrics)["input_ids"]) + 1
        elif self.name == "musicgen-melody":
            first = CHROMA
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        start = (text.index(prompt) if self.name == "ace-step" else 0) + prompt.lower().index(word.lower())
        return [first + i for i, (a, b) in enumerate(offsets) if a < start + len(word) and b > start and b > a]

    def conditions(self, *prompts):
        """Keys before the audio's own, where attention is joint."""
        longest = max(len(self.made.tokenizer(each)["input_ids"]) if self.name in CODES
                      else len(self.model.tokenizer(each)["input_ids"]) for each in prompts)  # fmt: skip
        return CHROMA + longest if self.name in CODES else longest + 1

    def conditional(self, seen):
        """Kernel calls of the spy that have conditional rows."""
        if self.name != "longcat-audio-dit":
            return seen
        # Guidance calls the denoiser again: every second call of each site.
        count: dict[str, int] = {}
        kept = []
        for each in seen:
            count[each.path] = count.get(each.path, -1) + 1
            if count[each.path] % 2 == 0:
                kept.append(each)
        return kept
