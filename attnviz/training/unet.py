"""Train the denoiser with its text encoder, from scratch or from a whole checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from attnviz import bundled
from attnviz.errors import TrainingError
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.scenes import CLASSES, PHRASES
from attnviz.training.captions import scene_caption
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.encoders import draw_new_keys, encoders_digest, join_encoders
from attnviz.training.latents import cached_latents, read_vae, vae_digest
from attnviz.training.models import make_model, make_scheduler
from attnviz.training.part import Batch, Part, Player
from attnviz.training.probes import ActivityProbe, PositionProbe
from attnviz.training.scene_store import SceneStore
from attnviz.training.text_encoder import TextSettings, make_conditioner
from attnviz.training.text_pretraining import teach_words

_PROMPTS = (
    "a dog barks",
    "rain falls",
    "a rooster crows, then a baby cries",
    "a helicopter flies, followed by a sneeze",
    "a clock ticks while waves crash",
    "a chainsaw runs, then a fire crackles",
)

# Values of Stable Diffusion 1.x (arXiv 2112.10752).
_STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class UnetModel:
    """Model to train: a new denoiser (`vae`, `unet`, `text`), or a whole `checkpoint`.

    Parameters
    ----------
    checkpoint : str
        Folder or hub name of a checkpoint in either layout to train further; ``"bundled"`` is the shipped one.
    vae : str
        Folder of the auto-encoder whose latents are denoised; ``"bundled"`` is the shipped one.
    unet : mapping
        Arguments of ``UNet2DConditionModel``, or ``{"pretrained": FOLDER}``.
    encoders : tuple of str
        Pretrained text encoders, which are kept unchanged unless `train_text_encoder`. Their keys are concatenated
        in this order, and their adapters are trained. See `join_encoders`. Of `text`, only ``cross_attention_dim``
        then applies. Empty: the encoder of `text`.
    new_keys : bool
        Whether to draw new weights of the keys and values of every cross-attention of a pretrained denoiser
        (``unet.pretrained``), which knows the keys of other encoders.
    text : TextSettings
        Settings of the text encoder. With ``pretraining_steps``, it and its adapter first learn the names of the
        sounds and are then frozen; otherwise, a new encoder is trained with the denoiser. For a checkpoint, only
        ``pretraining_steps`` may be given: its own encoder and adapter then learn the names again.
    scheduler : mapping
        Arguments of diffusers' scheduler that replace those of Stable Diffusion (for a new denoiser) or of the
        `checkpoint`. ``class`` selects another scheduler class (default for a new denoiser: ``PNDMScheduler``).
    train_text_encoder : bool
        Whether to train the text encoders of a checkpoint, or `encoders`.
    train_adapter : bool
        Whether to train the adapters of a checkpoint.
    """

    checkpoint: str = ""
    vae: str = "bundled"
    unet: Mapping[str, Any] = field(default_factory=dict)
    encoders: tuple[str, ...] = ()
    new_keys: bool = False
    text: TextSettings = field(default_factory=TextSettings)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    train_text_encoder: bool = False
    train_adapter: bool = True

    def __post_init__(self) -> None:
        if not self.train_adapter and (not self.checkpoint or self.train_text_encoder):
            raise TrainingError(
                "model.train_adapter is false, which requires a checkpoint with frozen text encoders; set "
                "model.checkpoint, and remove model.train_text_encoder."
            )
        if self.new_keys and "pretrained" not in self.unet:
            raise TrainingError("model.new_keys is for a pretrained denoiser; set model.unet.pretrained.")
        if self.encoders:
            known = replace(TextSettings(), cross_attention_dim=self.text.cross_attention_dim)
            if self.text != known:
                raise TrainingError(
                    "model.encoders are pretrained; of [model.text], only cross_attention_dim applies to them. "
                    "Remove its other settings."
                )


@dataclass(frozen=True)
class UnetObjective:
    """Loss of the denoiser.

    Parameters
    ----------
    condition_dropout : float
        Fraction of captions that are replaced by the unconditional embedding, for classifier-free guidance.
    new_captions : bool
        Whether to generate a new caption of a scene each time it is used: other phrases with the same meaning.
    timestep_shift : float
        Shift of the timestep distribution towards late timesteps, which are mostly noise and determine which
        sounds occur when. A fraction u of the schedule becomes ``shift u / (1 + (shift - 1) u)`` (Esser et al.
        2024, arXiv 2403.03206, eq. 23). 1 is uniform.
    mean_weight : float
        Weight of the squared error of each latent channel's mean over rows and columns. The mean determines the
        overall level of a clip and is set in the first steps of a generation, but contributes only 1 of 1024
        parts to the error of a 16 x 64 latent. (Hoogeboom et al. 2023, arXiv 2301.11093, eq. 9, add the errors
        of all coarser grids.) 0 disables it.
    position_weight : float
        Weight of the loss of `PositionProbe`: row and column predicted from the features that attend to words; 0
        disables it.
    activity_weight : float
        Weight of the loss of `ActivityProbe`: active sounds in each column predicted from the output of
        cross-attention; 0 disables it.
    """

    condition_dropout: float = 0.1
    new_captions: bool = True
    timestep_shift: float = 1.0
    mean_weight: float = 0.0
    position_weight: float = 0.0
    activity_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.timestep_shift < np.inf:
            raise TrainingError(f"objective.timestep_shift is {self.timestep_shift}; it must be above 0.")
        for name in ("mean_weight", "position_weight", "activity_weight"):
            weight = getattr(self, name)
            if not 0 <= weight < np.inf:
                raise TrainingError(f"objective.{name} is {weight}; it must be at least 0.")

    def timesteps(self, shares: torch.Tensor, count: int) -> torch.Tensor:
        """Return integer timesteps below `count` for fractions of the schedule in [0, 1)."""
        shifted = self.timestep_shift * shares / (1 + (self.timestep_shift - 1) * shares)
        return (shifted * count).long().clamp(max=count - 1)  # a fraction close to 1 may round to 1


class _Denoising(Player):
    """Squared error of the noise or velocity, according to the scheduler's ``prediction_type``."""

    def __init__(
        self,
        parts: torch.nn.ModuleDict,
        frozen: torch.nn.Module | None,
        pipe: AuffusionPipeline,
        objective: UnetObjective,
    ) -> None:
        super().__init__()
        self.parts, self.objective, self.frozen = parts, objective, frozen
        self.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.pipe = [pipe]  # in a list, so that its modules, which are in `parts`, are not registered twice
        self.position = PositionProbe(pipe.unet) if objective.position_weight else None
        self.activity = ActivityProbe(pipe.unet, len(CLASSES)) if objective.activity_weight else None

    def train(self, mode: bool = True) -> _Denoising:
        """Set the mode of the trained modules; a frozen text encoder uses no dropout."""
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        return self

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        latents = batch["latents"]
        keys = self.keys(batch["captions"], latents)
        noise = torch.randn_like(latents)
        shares = torch.rand(len(latents), device=latents.device)
        steps = self.objective.timesteps(shares, self.scheduler.config.num_train_timesteps)
        difference = self.difference(latents, keys, noise, steps)
        loss = difference.square().mean()
        told, whole = {"loss": loss}, loss
        if self.objective.mean_weight:
            told["mean"] = difference.mean((2, 3)).square().mean()
            whole = whole + self.objective.mean_weight * told["mean"]
        if self.position is not None:
            told["position"] = self.position.error()
            whole = whole + self.objective.position_weight * told["position"]
        if self.activity is not None:
            told["activity"] = self.activity.error(batch["activity"])
            whole = whole + self.objective.activity_weight * told["activity"]
        return whole, told

    def keys(self, captions: list[str], latents: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of captions after condition dropout."""
        keys, nothing = self.pipe[0].encode_prompt(captions, latents.device, 1, True)
        if nothing is None:  # always present with guidance
            return keys
        dropped = torch.rand(len(captions), device=latents.device) < self.objective.condition_dropout
        return torch.where(dropped[:, None, None], nothing.to(keys), keys)

    def difference(
        self, latents: torch.Tensor, keys: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction minus its target, in float32."""
        noisy = self.scheduler.add_noise(latents, noise, steps)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, steps) if velocity else noise
        predicted = self.parts["unet"](noisy, steps, encoder_hidden_states=keys, return_dict=False)[0]
        return predicted.float() - target


class UnetPart(Part):
    """A denoiser of latents and, unless a published text encoder is kept unchanged, its text encoder.

    In the adapter layout, the adapters are trained as well by default. Text encoders of a whole checkpoint, and
    pretrained ones (`encoders`, ``pretraining_steps``), are frozen.
    """

    def __init__(self, config: TrainingConfig, scenes: SceneStore, cache: Path, device: torch.device) -> None:
        model = read_settings(UnetModel, config.model, "model.")
        self.objective = read_settings(UnetObjective, config.objective, "objective.")
        self.pipe = _make_pipe(model, scenes, config.seed)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.to(device)
        self.cache, self.precision = cache, config.mixed_precision
        self.latents = self._encoded(scenes, device)
        self.pipe.unet.train().to(memory_format=torch.channels_last)
        parts = {"unet": self.pipe.unet}
        frozen = self.pipe.text_encoder
        if self.pipe.conditioner is not None:
            parts["conditioner"] = self.pipe.conditioner
            frozen = self._kept(model)
        if frozen is not None:
            frozen.requires_grad_(False)
        self.pipe.vae.requires_grad_(False)
        self.frozen = vae_digest(self.pipe.vae)
        if model.encoders:  # with the same names, they may have been trained again
            self.frozen += f"-{encoders_digest(self.pipe.conditioner)}"
        self.shipped = torch.nn.ModuleDict(parts)
        self._denoising = _Denoising(self.shipped, frozen, self.pipe, self.objective)
        self.players = [self._denoising]

    def _kept(self, model: UnetModel) -> torch.nn.Module | None:
        """Return the frozen part of the text conditioning."""
        if self.pipe.conditioner is None or model.train_text_encoder:
            return None
        if model.text.pretraining_steps or not model.train_adapter:
            return self.pipe.conditioner
        return self.pipe.conditioner.encoders if model.checkpoint or model.encoders else None

    def _encoded(self, scenes: SceneStore, device: torch.device) -> np.ndarray:
        return cached_latents(self.pipe.vae, scenes, self.cache, device, self.precision)

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return ``latents`` ``(batch, channels, rows, columns)``, ``captions``, ``activity`` if needed."""
        latents = torch.from_numpy(np.asarray(self.latents[indices], dtype=np.float32))
        captions = [self._caption(scenes, i, rng) for i in indices]
        made: Batch = {"latents": latents, "captions": captions}
        if self.objective.activity_weight:
            made["activity"] = torch.from_numpy(np.asarray(scenes.activity[indices]))
        return made

    def _caption(self, scenes: SceneStore, i: int, rng: np.random.Generator) -> str:
        if not self.objective.new_captions:
            return scenes.captions[i]
        return scene_caption(scenes, i, rng)

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the validation error by timestep, with the same noise every time."""
        latents = torch.from_numpy(np.asarray(self._encoded(scenes, device)[:64], dtype=np.float32)).to(device)
        keys = self.pipe.encode_prompt(scenes.captions[: len(latents)], device, 1, False)[0]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
        found = {}
        for step in (100, 300, 500, 700, 900):
            steps = torch.full((len(latents),), step, device=device)
            found[f"error_t{step}"] = float(
                self._denoising.difference(latents, keys, noise, steps).square().mean()
            )
        return {"error": float(np.mean(list(found.values()))), **found}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write an image of the spectrograms of six fixed prompts, generated from fixed noise in 25 steps."""
        generators = [torch.Generator().manual_seed(i) for i in range(len(_PROMPTS))]
        latents = self.pipe(
            list(_PROMPTS), num_inference_steps=25, guidance_scale=4.0, generator=generators, output_type="latent"
        ).latents
        with torch.no_grad():
            decoded = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor).sample
        images = (decoded[:, 0].float().cpu() / 2 + 0.5).clamp(0, 1).numpy()
        matplotlib.image.imsave(folder / "prompts.png", np.concatenate(images), cmap="magma", vmin=0, vmax=1)
        (folder / "prompts.txt").write_text("\n".join(_PROMPTS) + "\n", encoding="utf-8")

    def export(self, folder: Path) -> None:
        """Write the whole checkpoint in its layout."""
        self.pipe.save_pretrained(folder, overwrite=True)


def _make_pipe(model: UnetModel, scenes: SceneStore, seed: int) -> AuffusionPipeline:
    if model.checkpoint:
        fresh = UnetModel()
        own = replace(model, text=replace(model.text, pretraining_steps=0))
        given = [
            name for name in ("vae", "unet", "encoders", "text") if getattr(own, name) != getattr(fresh, name)
        ]
        if given:
            raise TrainingError(f"model.checkpoint includes all parts; remove model.{given[0]}.")
        shipped = model.checkpoint == bundled.NAME
        pipe = AuffusionPipeline.from_pretrained(bundled.FOLDER if shipped else model.checkpoint)
        pipe.scheduler = make_scheduler(pipe.scheduler.config, model.scheduler)
        if model.text.pretraining_steps:
            if pipe.conditioner is None:
                raise TrainingError(
                    f"{model.checkpoint} has no adapter, which model.text.pretraining_steps requires."
                )
            teach_words(pipe.conditioner, scenes.sounds, steps=model.text.pretraining_steps, seed=seed)
        return pipe
    vae = read_vae(model.vae)
    if model.encoders:
        conditioner = join_encoders(model.encoders, model.text.cross_attention_dim)
    else:
        conditioner = make_conditioner(model.text, scenes.captions)
    if model.text.pretraining_steps:
        teach_words(conditioner, scenes.sounds, steps=model.text.pretraining_steps, seed=seed)
    unet_settings = dict(model.unet)
    if "pretrained" not in unet_settings:
        unet_settings |= {
            "in_channels": vae.config.latent_channels,
            "out_channels": vae.config.latent_channels,
            "cross_attention_dim": conditioner.cross_attention_dim,
        }
    unet = make_model(UNet2DConditionModel, unet_settings, "unet")
    if unet.config.cross_attention_dim != conditioner.cross_attention_dim:
        raise TrainingError(
            f"the denoiser takes keys of width {unet.config.cross_attention_dim}, but the adapters give "
            f"{conditioner.cross_attention_dim}; set model.text.cross_attention_dim to the denoiser's width."
        )
    if model.new_keys:
        draw_new_keys(unet)
    scheduler = make_scheduler(_STABLE_DIFFUSION, model.scheduler)
    pipe = AuffusionPipeline(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler, conditioner=conditioner
    )
    heard = {sound["class"] for sounds in scenes.sounds for sound in sounds}
    pipe.known_sounds = {name: phrases.stems for name, phrases in PHRASES.items() if name in heard}
    return pipe
