"""The four parts: what they are trained on, what their losses say, what they write."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from training.training_toys import UNET, config, stepped

import attnviz
from attnviz.audio import image_to_mel, log_mel
from attnviz.audio.mel import log_mels
from attnviz.errors import AttnVizWarning, TrainingError
from attnviz.listener.folder import trained_listener
from attnviz.listener.model import Listener, ListenerConfig
from attnviz.models.conditioning import ConditionSpec
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.models.pipelines.known_sounds import read_known_sounds
from attnviz.models.pipelines.parts import read_model
from attnviz.models.vocoder import HifiGan
from attnviz.scenes import CLASSES, PHRASES
from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint
from attnviz.training.bundling import bundle
from attnviz.training.latents import cached_latents, vae_digest
from attnviz.training.listener import ListenerPart
from attnviz.training.scene_store import SceneStore
from attnviz.training.spectral_loss import StftError, mel_error
from attnviz.training.text_encoder import TextSettings, make_conditioner
from attnviz.training.text_pretraining import _labelled, teach_words
from attnviz.training.unet import UnetPart
from attnviz.training.vae import VaePart, block_levels, psnr, reconstruct, standardise_latents
from attnviz.training.vocoder import VocoderPart

CPU = torch.device("cpu")
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [4, 4, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "mid_block_add_attention": False,
}
TEXT = {"hidden_size": 16, "layers": 1, "heads": 2, "cross_attention_dim": 12}
VOCODER = {
    "resblock": "2",
    "upsample_rates": [10, 16],
    "upsample_kernel_sizes": [20, 32],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "num_mels": 256,
}


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(**VAE).save_pretrained(folder)
    return folder


# ---- auto-encoder --------------------------------------------------------------------------------------------


def test_vae_learns_and_is_read_back_as_a_checkpoint_part(scenes, tmp_path):
    torch.manual_seed(0)
    part = VaePart(config("vae", VAE, objective={"columns": 64, "ridge_weight": 1.0}), scenes)
    losses = stepped(part, scenes, 8, 1e-2)
    assert losses[-1] < losses[0]
    part.shipped.eval()
    before = reconstruct(part.shipped, scenes.images[:1])
    part.export(tmp_path)
    again = read_model(AutoencoderKL, tmp_path / "vae", torch.float32)
    np.testing.assert_allclose(reconstruct(again, scenes.images[:1]), before, atol=1e-4)


def test_standardised_latents_have_mean_0_and_deviation_1_and_decode_the_same(scenes):
    torch.manual_seed(1)
    vae = AutoencoderKL(**VAE).eval()
    posterior = vae.encode(torch.zeros(1, 3, 256, 64)).latent_dist
    images = [scenes.images[i : i + 1] for i in range(3)]
    before = reconstruct(vae, scenes.images)
    standardise_latents(vae, images)
    with torch.no_grad():
        latents = torch.cat(
            [
                vae.encode(torch.from_numpy(np.repeat(np.float32(i)[:, None] * 2 - 1, 3, 1))).latent_dist.mean
                for i in images
            ]
        )
        after = vae.encode(torch.zeros(1, 3, 256, 64)).latent_dist
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    # The posterior's spread is scaled with its mean.
    ratio = after.std / posterior.std
    assert ratio.std((0, 2, 3)).max() < 1e-4
    assert vae.config.scaling_factor == 1.0
    np.testing.assert_allclose(reconstruct(vae, scenes.images), before, atol=1e-4)


def test_a_decoder_that_goes_on_alone_leaves_the_latents_as_they_are(scenes, vae_folder, tmp_path):
    torch.manual_seed(0)
    objective = {"columns": 64, "decoder_only": True}
    part = VaePart(config("vae", {"pretrained": str(vae_folder)}, objective=objective), scenes)
    before = {name: tensor.clone() for name, tensor in part.shipped.state_dict().items()}
    stepped(part, scenes, 2, 1e-2)
    after = part.shipped.state_dict()
    encoder = [name for name in before if name.startswith(("encoder.", "quant_conv."))]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert not torch.equal(before["decoder.conv_out.weight"], after["decoder.conv_out.weight"])
    part.export(tmp_path)
    again = read_model(AutoencoderKL, tmp_path / "vae", torch.float32)
    assert all(torch.equal(before[name], again.state_dict()[name]) for name in encoder)
    with pytest.raises(TrainingError, match=r"set model.pretrained"):
        VaePart(config("vae", VAE, objective=objective), scenes)


def test_the_level_of_a_block_is_that_of_its_mean_power():
    """Of one loud pixel in 256: its own level less 10 log10 256 dB; of an even block: its value."""
    image = torch.full((1, 1, 16, 32), -1.0)
    image[0, 0, 3, 4] = 0.6
    levels = block_levels(image)
    assert levels.shape == (1, 1, 1, 3)
    # An image in [0, 1] is a log magnitude over 20 log10(200 / 1e-5) = 146 dB.
    decibels = 20 * np.log10(200 / 1e-5) / 2
    assert float(levels[0, 0, 0, 0]) == pytest.approx(0.6 - 10 * np.log10(256) / decibels, abs=1e-5)
    assert float(levels[0, 0, 0, 2]) == pytest.approx(-1.0, abs=1e-5)
    assert float(block_levels(torch.full((1, 1, 16, 16), 0.25))) == pytest.approx(0.25, abs=1e-6)


def test_asked_for_levels_a_decoder_that_cannot_place_lines_draws_them_brighter():
    """Lines whose place is told to nobody: the squared error asks for their mean brightness."""

    def best(weight: float) -> float:
        values = torch.linspace(-1, 1, 401)
        lines = torch.full((16, 16), -1.0)
        lines[::8] = 0.5
        errors = []
        for value in values:
            drawn = torch.full((1, 1, 16, 16), float(value))
            level = (block_levels(drawn) - block_levels(lines[None, None])).square().mean()
            errors.append(float((drawn - lines).square().mean() + weight * level))
        return float(values[int(np.argmin(errors))])

    assert best(0) == pytest.approx(-1 + 1.5 / 8, abs=0.01)
    assert best(1e4) == pytest.approx(0.5 - np.log(8) / np.log(2e7), abs=0.01)


def test_vae_columns_must_be_a_multiple_of_its_factor(scenes):
    with pytest.raises(
        TrainingError, match=r"objective.columns is 40; it must be a multiple of the downsampling factor 16"
    ):
        VaePart(config("vae", VAE, objective={"columns": 40}), scenes)


def test_vae_settings_that_are_none_are_named(scenes):
    with pytest.raises(TrainingError, match=r"model.channels is not a setting. Is model.in_channels meant"):
        VaePart(config("vae", {"channels": 3}), scenes)


def test_psnr_of_a_known_error():
    assert psnr(np.zeros((4, 6)), np.full((4, 6), 0.1)) == pytest.approx(20.0)


def test_latents_are_of_the_encoder_whatever_the_decoder(scenes, tmp_path):
    torch.manual_seed(2)
    vae = AutoencoderKL(**VAE).eval()
    cached_latents(vae, scenes, tmp_path, CPU)
    kept = list(tmp_path.iterdir())
    with torch.no_grad():
        vae.decoder.conv_out.weight += 1
    cached_latents(vae, scenes, tmp_path, CPU)
    assert list(tmp_path.iterdir()) == kept
    with torch.no_grad():
        vae.encoder.conv_out.weight += 1
    cached_latents(vae, scenes, tmp_path, CPU)
    assert len(list(tmp_path.iterdir())) == 2


def test_cached_latents_are_the_encoder_s_and_are_kept(scenes, tmp_path):
    torch.manual_seed(2)
    vae = AutoencoderKL(**VAE, scaling_factor=0.5).eval()
    latents = cached_latents(vae, scenes, tmp_path, CPU)
    pixels = torch.from_numpy(np.float32(scenes.images[1])) * 2 - 1
    with torch.no_grad():
        direct = 0.5 * vae.encode(pixels.expand(1, 3, -1, -1)).latent_dist.mean
    np.testing.assert_allclose(latents[1], direct[0].numpy(), atol=2e-3)
    assert latents.shape == (3, 4, 16, 64)
    kept = list(tmp_path.iterdir())
    cached_latents(vae, scenes, tmp_path, CPU)
    assert list(tmp_path.iterdir()) == kept
    with torch.no_grad():
        vae.quant_conv.bias += 1
    assert abs(cached_latents(vae, scenes, tmp_path, CPU)[1] - latents[1]).max() > 0.1
    assert len(list(tmp_path.iterdir())) == 2


# ---- listener ------------------------------------------------------------------------------------------------


def test_a_listener_goes_on_from_a_trained_one(scenes, tmp_path):
    torch.manual_seed(0)
    Listener(ListenerConfig(channels=(4,), hidden=4)).save_pretrained(tmp_path / "trained")
    part = ListenerPart(config("listener", {"pretrained": str(tmp_path / "trained")}), scenes, tmp_path, CPU)
    before = part.shipped.out.weight.detach().clone()
    assert torch.equal(before, Listener.from_pretrained(tmp_path / "trained").out.weight)
    stepped(part, scenes)
    assert not torch.equal(before, part.shipped.out.weight)
    shipped = ListenerPart(config("listener", {"pretrained": "bundled"}), scenes, tmp_path, CPU).shipped
    assert shipped.config == trained_listener(None).listener.config
    with pytest.raises(TrainingError, match=r"remove hidden"):
        ListenerPart(config("listener", {"pretrained": "bundled", "hidden": 4}), scenes, tmp_path, CPU)
    with pytest.raises(TrainingError, match=r"give the path of a folder"):
        ListenerPart(config("listener", {"pretrained": 4}), scenes, tmp_path, CPU)


def test_listener_frames_are_means_of_columns_and_it_learns(scenes, tmp_path):
    torch.manual_seed(0)
    model = {"channels": [4, 8], "hidden": 8, "mel_bands": 16}
    part = ListenerPart(config("listener", model, objective={"mixup": 0.0}), scenes, tmp_path, CPU)
    batch = part.batch(scenes, np.array([1]), np.random.default_rng(0))
    assert batch["activity"].shape == (1, len(CLASSES), 256)
    assert batch["activity"][0, 0].tolist() == [0.0] * 75 + [1.0] * 181
    losses = stepped(part, scenes, 8, 1e-2)
    assert losses[-1] < losses[0]


def exchanging():
    """A generator that lays two scenes over each other, and not each over itself."""
    for seed in range(10):
        draws = np.random.default_rng(seed)
        draws.random(2)
        if draws.permutation(2)[0] == 1:
            return np.random.default_rng(seed)
    raise LookupError("no such seed")


def test_mixed_scenes_hold_the_sounds_of_both(scenes, tmp_path):
    part = ListenerPart(
        config("listener", {"channels": [4], "hidden": 4}, objective={"mixup": 1.0}), scenes, tmp_path, CPU
    )
    there = scenes.activity.copy()
    there[2] = False
    there[2, 4, :100] = True
    other = SceneStore(scenes.images, scenes.audio, there, scenes.captions, scenes.sounds, "two")
    batch = part.batch(other, np.array([0, 2]), exchanging())
    assert batch["activity"][:, 4, :25].all()
    assert batch["activity"][:, 0, 80:].all()


def test_half_of_the_first_scenes_are_seen_as_the_auto_encoder_gives_them_back(scenes, vae_folder, tmp_path):
    objective = {"reconstructions": 2, "vae": str(vae_folder)}
    part = ListenerPart(
        config("listener", {"channels": [4], "hidden": 4}, objective=objective), scenes, tmp_path, CPU
    )
    back = reconstruct(read_model(AutoencoderKL, vae_folder, torch.float32), scenes.images[:2])
    np.testing.assert_allclose(part.reconstructions, back, atol=2e-3)
    rng = np.random.default_rng(0)
    seen = [part._image(scenes, 0, rng) for _ in range(40)]
    as_it_was = sum(np.array_equal(image, scenes.images[0]) for image in seen)
    assert 10 < as_it_was < 30
    assert all(np.array_equal(part._image(scenes, 2, rng), scenes.images[2]) for _ in range(10))


# ---- vocoder -------------------------------------------------------------------------------------------------


def test_a_fresh_vocoder_passes_the_spread_of_its_input_through_every_upsampling():
    torch.manual_seed(0)
    deep = {**VOCODER, "upsample_rates": [5, 2, 4, 4], "upsample_kernel_sizes": [10, 4, 8, 8]}
    part = VocoderPart(config("vocoder", {**deep, "upsample_initial_channel": 256}))
    spreads = []
    for up in part.shipped.ups:
        up.register_forward_hook(lambda module, args, output: spreads.append(float(output.std() / args[0].std())))
    with torch.no_grad():
        part.shipped(torch.randn(2, 256, 32) * 3 - 5)
    # What comes in was halved by the leaky ReLU (its mean square is about half a normal's), and is not any more.
    assert all(0.8 < spread < 2.5 for spread in spreads), spreads


def test_log_mel_of_batches_is_the_log_mel(scenes):
    waves = torch.from_numpy(scenes.audio.astype(np.float32) / 32768)
    direct = np.stack([log_mel(wave.numpy()) for wave in waves])
    np.testing.assert_allclose(log_mels(waves).numpy(), direct, atol=2e-3)


def test_spectral_distances_are_0_for_the_same_and_1_nat_for_e_times_louder(scenes):
    waves = torch.from_numpy(scenes.audio[:, :16_000].astype(np.float32) / 32768)
    mels = log_mels(waves)
    everything = torch.full((len(mels), 1, 1), -20.0)
    assert float(mel_error(mels, mels, everything)) == 0
    assert float(mel_error(mels + 1, mels, everything)) == pytest.approx(1.0, abs=1e-5)
    error = StftError()
    assert float(error(waves, waves)) == 0
    assert float(error(np.e * waves, waves)) == pytest.approx(1.0, abs=0.05)


def test_what_should_not_be_audible_counts_by_how_far_it_is():
    wanted = torch.full((1, 3, 20), -10.0)
    wanted[:, 0] = -2.0  # the only band above the floor
    floors = torch.full((1, 1, 1), -9.0)
    assert float(mel_error(wanted - 1, wanted, floors)) == pytest.approx(1.0)  # one band too quiet, two below
    given = wanted.clone()
    given[:, 1] = -6.5  # 2.5 above the floor, over as many cells as are audible
    assert float(mel_error(given, wanted, floors)) == pytest.approx(2.5)
    # Nothing is audible: a sum, since there is no mean over no cells.
    assert float(mel_error(wanted, wanted - 20, floors)) == pytest.approx(7.0 * 12)


def test_vocoder_pieces_hold_something_audible(scenes):
    part = VocoderPart(config("vocoder", VOCODER, objective={"columns": 32, "audible_db": 30.0}))
    rng = np.random.default_rng(0)
    for _ in range(20):
        batch = part.batch(scenes, np.array([0, 1]), rng)
        assert (batch["mels"] >= batch["floors"]).flatten(1).any(dim=1).all()
    loudest = np.asarray(scenes.images[:2], dtype=np.float32).max(axis=(1, 2), keepdims=True)
    expected = image_to_mel(loudest) - 30 * np.log(10) / 20
    np.testing.assert_allclose(batch["floors"].numpy(), expected, rtol=1e-5)


def test_vocoder_learns_and_is_exported_with_its_weights_folded(scenes, tmp_path):
    torch.manual_seed(0)
    part = VocoderPart(config("vocoder", VOCODER, objective={"columns": 32}))
    batch = part.batch(scenes, np.array([0, 1]), np.random.default_rng(0))
    assert batch["mels"].shape == (2, 256, 32)
    assert batch["waves"].shape == (2, 5120)
    # The audio and the spectrogram are of the same moment.
    inner = log_mels(batch["waves"])[:, :, 8:-8] - batch["mels"][:, :, 8:-8]
    assert inner.abs().mean() < 0.02
    # It first gets louder than it should: it begins next to silent, where much of a quiet clip is right.
    losses = stepped(part, scenes, 200, 1e-3)
    assert losses[-1] < losses[0]
    part.export(tmp_path)
    again = HifiGan.from_pretrained(tmp_path / "vocoder")
    with torch.no_grad():
        np.testing.assert_allclose(again(batch["mels"]), part.shipped(batch["mels"]), atol=1e-5)


def test_a_vocoder_of_other_spectrograms_is_refused():
    with pytest.raises(TrainingError, match="hop_length=80"):
        VocoderPart(config("vocoder", {**VOCODER, "upsample_rates": [5, 16], "hop_size": 80}))


# ---- denoiser ------------------------------------------------------------------------------------------------


def unet_part(scenes, vae_folder, tmp_path, **changes):
    torch.manual_seed(5)
    model = {"vae": str(vae_folder), "unet": UNET, "text": TEXT, **changes.pop("model", {})}
    return UnetPart(config("unet", model, **changes), scenes, tmp_path, CPU)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoiser_learns_and_its_checkpoint_generates(prediction, scenes, vae_folder, tmp_path):
    part = unet_part(scenes, vae_folder, tmp_path, model={"scheduler": {"prediction_type": prediction}})
    losses = stepped(part, scenes, 6, 3e-3)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert part.validate(scenes, CPU)["error"] > 0
    part.export(tmp_path / "model")
    with pytest.warns(AttnVizWarning, match="Griffin-Lim"):
        pipe = AuffusionPipeline.from_pretrained(tmp_path / "model")
    assert pipe.scheduler.config.prediction_type == prediction
    assert dict(pipe.known_sounds) == {"Dog bark": PHRASES["Dog bark"].stems}
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a dog barks", num_inference_steps=2, output_type="latent").latents.shape == (1, 4, 16, 64)


def test_denoiser_s_error_is_that_written_out_by_hand(scenes, vae_folder, tmp_path):
    part = unet_part(scenes, vae_folder, tmp_path, model={"scheduler": {"prediction_type": "v_prediction"}})
    player = part.players[0]
    latents = torch.from_numpy(np.float32(part.latents[:2]))
    noise, steps = torch.randn(latents.shape), torch.tensor([10, 800])
    keys = part.pipe.conditioner(["a dog barks", "rain"])
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[steps].view(2, 1, 1, 1)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    target = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    part.pipe.unet.eval()
    with torch.no_grad():
        predicted = part.pipe.unet(noisy, steps, keys).sample
        by_hand = ((predicted - target) ** 2).mean((1, 2, 3))
        found = player.difference(latents, keys, noise, steps).square().mean((1, 2, 3))
        np.testing.assert_allclose(found, by_hand, rtol=1e-4)


def test_dropped_captions_become_zeros_and_no_others(scenes, vae_folder, tmp_path):
    latents = torch.zeros(40, 4, 16, 64)
    captions = ["a dog barks"] * 40
    for share in (0.0, 0.5, 1.0):
        part = unet_part(scenes, vae_folder, tmp_path, objective={"condition_dropout": share})
        torch.manual_seed(0)
        with torch.no_grad():
            keys = part.players[0].keys(captions, latents)
            whole = part.pipe.conditioner(captions[:1])
        dropped = (keys == 0).all(dim=(1, 2))
        assert abs(float(dropped.float().mean()) - share) < 0.2
        assert torch.equal(keys[~dropped], whole.expand(int((~dropped).sum()), -1, -1))


def test_captions_are_written_anew_and_name_the_same_sound(scenes, vae_folder, tmp_path):
    part = unet_part(scenes, vae_folder, tmp_path)
    rng = np.random.default_rng(0)
    captions = {part.batch(scenes, np.array([0]), rng)["captions"][0] for _ in range(20)}
    assert len(captions) > 3
    assert all("dog" in caption for caption in captions)
    same = unet_part(scenes, vae_folder, tmp_path, objective={"new_captions": False})
    assert same.batch(scenes, np.array([0]), rng)["captions"] == ["a dog barks"]


def test_the_mean_of_each_channel_weighs_as_much_as_is_asked(scenes, vae_folder, tmp_path):
    """A prediction that is off by one number everywhere, and one that is off by as much in a chequered way."""
    part = unet_part(scenes, vae_folder, tmp_path, objective={"mean_weight": 5.0})
    player, shape = part.players[0], (2, 4, 16, 64)
    chequered = 1 - 2 * (torch.arange(16)[:, None] + torch.arange(64)).remainder(2).float()
    batch = part.batch(scenes, np.array([0, 2]), np.random.default_rng(0))
    for off, mean in ((torch.full(shape, 0.3), 0.09), (0.3 * chequered.expand(shape), 0.0)):
        player.difference = lambda *_, off=off: off
        whole, told = player(batch)
        assert float(told["loss"]) == pytest.approx(0.09, rel=1e-5)
        assert float(told["mean"]) == pytest.approx(mean, abs=1e-7)
        assert float(whole) == pytest.approx(0.09 + 5 * mean, rel=1e-5)


def test_a_new_denoiser_s_words_stay_as_their_own_pretraining_left_them(scenes, vae_folder, tmp_path):
    for steps, stay in ((2, True), (0, False)):
        part = unet_part(scenes, vae_folder, tmp_path, model={"text": {**TEXT, "pretraining_steps": steps}})
        before = {name: tensor.clone() for name, tensor in part.pipe.conditioner.state_dict().items()}
        stepped(part, scenes)
        after = part.pipe.conditioner.state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in after.items()) == stay
        if stay:
            assert not any(parameter.requires_grad for parameter in part.pipe.conditioner.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_adapter_checkpoint, write_plain_checkpoint])
def test_a_whole_checkpoint_is_gone_on_from(write, scenes, tmp_path):
    write(tmp_path / "published", seed=1)
    torch.manual_seed(0)
    settings = {"checkpoint": str(tmp_path / "published")}
    part = UnetPart(config("unet", settings), scenes, tmp_path / "cache", CPU)
    frozen = part.pipe.text_encoder if part.pipe.conditioner is None else part.pipe.conditioner.encoders
    before = [parameter.clone() for parameter in frozen.parameters()]
    first = next(part.pipe.unet.parameters()).clone()
    stepped(part, scenes)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))
    assert not torch.equal(first, next(part.pipe.unet.parameters()))
    part.export(tmp_path / "model")
    again = read_model(UNet2DConditionModel, tmp_path / "model" / "unet", torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), part.pipe.unet.parameters(), strict=True))
    assert AuffusionPipeline.from_pretrained(tmp_path / "model").known_sounds is None


def test_the_shipped_model_goes_by_its_name(scenes, tmp_path):
    part = UnetPart(config("unet", {"checkpoint": "bundled"}), scenes, tmp_path / "cache", CPU)
    shipped = attnviz.load()
    for name, tensor in shipped.unet.state_dict().items():
        torch.testing.assert_close(part.pipe.unet.state_dict()[name], tensor, rtol=0, atol=0)
    part.export(tmp_path / "model")
    assert read_known_sounds(tmp_path / "model") == shipped.known_sounds


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_schedule_and_its_text_encoder(scenes, tmp_path):
    write_adapter_checkpoint(tmp_path / "published", seed=1)
    scheduler = {"class": "DDIMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    settings = {"checkpoint": str(tmp_path / "published"), "scheduler": scheduler, "train_text_encoder": True}
    part = UnetPart(config("unet", settings), scenes, tmp_path / "cache", CPU)
    player = part.players[0]
    # Nothing of the scene is left in the last timestep, and what is to be predicted there is the scene.
    latents, noise = torch.randn(2, 4, 16, 64), torch.randn(2, 4, 16, 64)
    last = torch.tensor([999, 999])
    torch.testing.assert_close(player.scheduler.add_noise(latents, noise, last), noise)
    torch.testing.assert_close(player.scheduler.get_velocity(latents, noise, last), -latents)
    before = [parameter.clone() for parameter in part.pipe.conditioner.encoders.parameters()]
    stepped(part, scenes)
    changed = [
        not torch.equal(a, b) for a, b in zip(before, part.pipe.conditioner.encoders.parameters(), strict=True)
    ]
    assert any(changed)
    part.export(tmp_path / "model")
    again = AuffusionPipeline.from_pretrained(tmp_path / "model").scheduler
    assert type(again).__name__ == "DDIMScheduler"
    assert float(again.alphas_cumprod[-1]) == 0
    assert again.config.beta_schedule == part.pipe.scheduler.config.beta_schedule == "scaled_linear"


@pytest.mark.slow
def test_a_checkpoint_s_words_may_stay_as_they_are(scenes, tmp_path):
    write_adapter_checkpoint(tmp_path / "published", seed=1)
    settings = {"checkpoint": str(tmp_path / "published"), "train_adapter": False}
    part = UnetPart(config("unet", settings), scenes, tmp_path / "cache", CPU)
    before = {name: tensor.clone() for name, tensor in part.pipe.conditioner.state_dict().items()}
    stepped(part, scenes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in part.pipe.conditioner.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"checkpoint": "bundled", "train_text_encoder": True}])
def test_adapters_that_cannot_stay_are_refused(settings, scenes, tmp_path):
    with pytest.raises(TrainingError, match=r"model.train_adapter is false, which requires a checkpoint"):
        UnetPart(config("unet", {**settings, "train_adapter": False}), scenes, tmp_path, CPU)


def test_a_denoiser_asked_what_lies_where_ships_without_what_asked(scenes, vae_folder, tmp_path):
    plain = unet_part(scenes, vae_folder, tmp_path)
    objective = {"position_weight": 0.5, "activity_weight": 0.25, "timestep_shift": 3.0}
    part = unet_part(scenes, vae_folder, tmp_path, objective=objective)
    batch = part.batch(scenes, np.array([0, 2]), np.random.default_rng(0))
    np.testing.assert_array_equal(batch["activity"], scenes.activity[[0, 2]])
    player = part.players[0]
    loss, told = player(batch)
    torch.testing.assert_close(loss, told["loss"] + 0.5 * told["position"] + 0.25 * told["activity"])
    first = [probe.readings[0].weight.clone() for probe in (player.position, player.activity)]
    losses = stepped(part, scenes, 6, 3e-3)
    assert losses[-1] < losses[0]
    after = [probe.readings[0].weight for probe in (player.position, player.activity)]
    assert not any(torch.equal(a, b) for a, b in zip(first, after, strict=True))
    assert set(part.shipped.state_dict()) == set(plain.shipped.state_dict())
    part.export(tmp_path / "model")
    again = read_model(UNet2DConditionModel, tmp_path / "model" / "unet", torch.float32)
    assert set(again.state_dict()) == set(plain.pipe.unet.state_dict())


@pytest.mark.slow
def test_a_checkpoint_s_words_are_learnt_again_and_then_stay(scenes, tmp_path):
    write_adapter_checkpoint(tmp_path / "published", seed=1)
    settings = {"checkpoint": str(tmp_path / "published"), "text": {"pretraining_steps": 2}}
    part = UnetPart(config("unet", settings), scenes, tmp_path / "cache", CPU)
    published = AuffusionPipeline.from_pretrained(tmp_path / "published").conditioner.state_dict()
    taught = {name: tensor.clone() for name, tensor in part.pipe.conditioner.state_dict().items()}
    assert any(not torch.equal(tensor, published[name]) for name, tensor in taught.items())
    stepped(part, scenes)
    # The adapter, too: it could make one of what the pretraining set apart.
    assert all(torch.equal(tensor, taught[name]) for name, tensor in part.pipe.conditioner.state_dict().items())
    write_plain_checkpoint(tmp_path / "plain", seed=1)
    with pytest.raises(TrainingError, match="has no adapter"):
        UnetPart(config("unet", {**settings, "checkpoint": str(tmp_path / "plain")}), scenes, tmp_path, CPU)
    with pytest.raises(TrainingError, match=r"remove model.text"):
        UnetPart(config("unet", {**settings, "text": {"layers": 2}}), scenes, tmp_path, CPU)


@pytest.mark.slow
def test_classes_stand_apart_after_the_words_are_learnt():
    """A linear layer tells apart what is all but the same; a denoiser draws the same of it."""
    scenes = [[{"class": name, "onset": 1.0, "offset": 3.0}] for name in CLASSES]
    torch.manual_seed(0)
    conditioner = make_conditioner(TextSettings(**TEXT), [one.clauses[0] for one in PHRASES.values()])
    teach_words(conditioner, scenes * 10, steps=150, seed=0)
    captions = [PHRASES[name].clauses[0] for name in CLASSES]
    with torch.no_grad():
        embeddings = conditioner.encode(captions, warn=False).float()
    last = torch.stack([each[len(caption.split())] for each, caption in zip(embeddings, captions, strict=True)])
    last = torch.nn.functional.normalize(last, dim=1)
    cosines = last @ last.T - 2 * torch.eye(len(CLASSES))
    assert cosines.max() < 0.7


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"class": "DDIM"}, r"model.scheduler.class is 'DDIM'; give the name of a diffusers scheduler"),
        ({"class": 3}, r"model.scheduler.class is 3"),
        ({"beta_begin": 0.1}, r"model.scheduler.beta_begin is not a setting"),
        (
            {"rescale_betas_zero_snr": True},
            r"model.scheduler.rescale_betas_zero_snr is not a setting",
        ),  # PNDM has not
        ({"beta_schedule": "round"}, r"cannot create PNDMScheduler from these settings"),
    ],
)
def test_schedulers_that_are_none_are_refused(scheduler, message, scenes, vae_folder, tmp_path):
    with pytest.raises(TrainingError, match=message):
        unet_part(scenes, vae_folder, tmp_path, model={"scheduler": scheduler})


def test_a_whole_checkpoint_brings_its_own_parts(scenes, tmp_path):
    with pytest.raises(TrainingError, match=r"remove model.unet"):
        UnetPart(config("unet", {"checkpoint": "x", "unet": UNET}), scenes, tmp_path, CPU)


def test_the_tokenizer_is_the_same_every_time_and_writes_any_text():
    captions = ["a dog barks, then rain falls", "the rooster crows while a clock ticks"]
    first, second = (make_conditioner(TextSettings(16, 1, 2, 12), captions).tokenizers[0] for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    words = first.convert_ids_to_tokens(first("a rooster barks")["input_ids"])[1:-1]
    assert words == ["a</w>", "rooster</w>", "barks</w>"]
    strange = first.convert_ids_to_tokens(first("zebra öl 音")["input_ids"])[1:-1]
    assert first.eos_token not in strange


def test_text_settings_that_contradict_each_other_are_refused():
    with pytest.raises(TrainingError, match=r"model.text"):
        make_conditioner(TextSettings(hidden_size=16, heads=3), ["a dog"])


@pytest.mark.slow
def test_words_are_learnt_before_the_denoiser_listens():
    scenes = [
        [{"class": name, "onset": 1.0, "offset": 3.0}, {"class": other, "onset": 4.0, "offset": 6.0}]
        for name in CLASSES
        for other in CLASSES
        if name != other
    ]
    encoders = []
    for _ in range(2):
        torch.manual_seed(0)
        conditioner = make_conditioner(
            TextSettings(**TEXT), [phrase for one in PHRASES.values() for phrase in one.clauses]
        )
        random_state = torch.get_rng_state()
        with torch.no_grad():  # as a caller may have it
            right = teach_words(conditioner, scenes, steps=60, seed=3)
        assert torch.equal(torch.get_rng_state(), random_state)
        encoders.append(conditioner.state_dict())
    assert right > 0.5  # one in eleven by chance; "a" and "the" tell nothing of what follows
    assert all(torch.equal(tensor, encoders[1][name]) for name, tensor in encoders[0].items())


def test_every_token_is_labelled_with_the_sound_its_phrase_names():
    conditioner = make_conditioner(TextSettings(**TEXT), ["a dog barks, then rain falls"])
    scene = [
        {"class": "Rain", "onset": 5.0, "offset": 9.0},
        {"class": "Dog bark", "onset": 0.0, "offset": 1.0},
    ]
    (caption,), labels, times = _labelled(conditioner, [scene], np.random.default_rng(0))
    rows = conditioner.token_table(caption).rows
    for row, label in zip(rows.itertuples(), labels[0].tolist(), strict=True):
        if row.kind != "text":
            assert label == -100
        elif row.word.startswith(("dog", "bark")):
            assert CLASSES[label] == "Dog bark"
        elif row.word.startswith("rain"):
            assert CLASSES[label] == "Rain"
        elif row.word in ("then", "followed", "by", "before", "recording", "hear"):
            assert label == len(CLASSES)
    assert {CLASSES.index("Dog bark"), CLASSES.index("Rain")} < set(labels[0].tolist())
    dog = times[labels == CLASSES.index("Dog bark")]
    torch.testing.assert_close(dog, torch.tensor([[0.0, 1 / 9]]).expand(len(dog), 2))
    sounding = (labels >= 0) & (labels < len(CLASSES))
    assert torch.equal(torch.isfinite(times[..., 0]), sounding)


# ---- putting together ----------------------------------------------------------------------------------------


def write_records(run: Path) -> None:
    (run / "config.json").write_text('{"seed": 3}')
    (run / "metrics.csv").write_text("step,seconds,name,value\n")


def test_bundled_parts_are_halved_and_the_others_stay(tmp_path):
    part = tmp_path / "run" / "model" / "vocoder"
    part.mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.tensor([1.0, 0.1])}, part / "vocoder.safetensors")
    (part / "config.json").write_text("{}")
    write_records(tmp_path / "run")
    out = tmp_path / "bundled"
    (out / "listener").mkdir(parents=True)
    (out / "listener" / "config.json").write_text("kept")
    (out / "vocoder").mkdir()
    (out / "vocoder" / "quality.json").write_text("measured")
    (out / "vocoder" / "old.json").write_text("old")
    assert bundle({"vocoder": tmp_path / "run"}, out) == [
        "training/vocoder.csv", "training/vocoder.json", "vocoder",
    ]  # fmt: skip
    assert (out / "training" / "vocoder.json").read_text() == '{"seed": 3}'
    weights = safetensors.torch.load_file(out / "vocoder" / "vocoder.safetensors")["w"]
    assert torch.equal(weights, torch.tensor([1.0, 0.1]).half())
    assert (out / "listener" / "config.json").read_text() == "kept"
    assert not (out / "vocoder" / "quality.json").exists()  # it was measured of other weights
    assert not (out / "vocoder" / "old.json").exists()


def test_bundling_refuses_what_half_precision_cannot_hold_and_unfinished_runs(tmp_path):
    part = tmp_path / "run" / "model" / "listener"
    part.mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.tensor([1e6])}, part / "listener.safetensors")
    write_records(tmp_path / "run")
    with pytest.raises(TrainingError, match="above 65504"):
        bundle({"listener": tmp_path / "run"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TrainingError, match="no trained part"):
        bundle({"vae": tmp_path / "run"}, tmp_path / "out")


def write_specs(folder, count):
    """Write the entries of text encoders of 4 channels, and their folders."""
    entries = [
        ConditionSpec(f"text_encoder_{i}", f"condition_adapter_{i}", condition_max_length=77, condition_dim=4,
                      cross_attention_dim=4)
        for i in range(count)
    ]  # fmt: skip
    (folder / "condition_config.json").write_text(json.dumps([asdict(entry) for entry in entries]))
    for name in [name for i in range(count) for name in (f"text_encoder_{i}", f"condition_adapter_{i}")]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text("{}")


def test_a_denoiser_is_bundled_with_all_of_its_text_encoders_and_no_others(tmp_path):
    out = tmp_path / "bundled"
    (out / "vae").mkdir(parents=True)
    safetensors.torch.save_file({"encoder.w": torch.zeros(2)}, out / "vae" / "vae.safetensors")
    for count in (3, 2):
        run = tmp_path / f"run{count}"
        shutil.copytree(out / "vae", run / "model" / "vae")
        for name in ("unet", "scheduler"):
            (run / "model" / name).mkdir()
        (run / "model" / "sounds.json").write_text("{}")
        write_specs(run / "model", count)
        write_records(run)
        bundle({"unet": run}, out)
        found = sorted(path.name for path in out.glob("*_[0-9]"))
        assert found == [f"{name}_{i}" for name in ("condition_adapter", "text_encoder") for i in range(count)]


def test_a_denoiser_is_bundled_with_the_auto_encoder_it_was_trained_on(tmp_path):
    run, out = tmp_path / "run", tmp_path / "bundled"
    for name in ("unet", "scheduler", "text_encoder_0", "condition_adapter_0"):
        (run / "model" / name).mkdir(parents=True)
    (run / "model" / "sounds.json").write_text("{}")
    write_specs(run / "model", 1)
    write_records(run)
    weights = {"encoder.w": torch.tensor([1.0, 0.1]), "decoder.w": torch.tensor([1.0])}
    other_decoder = {"encoder.w": weights["encoder.w"].half(), "decoder.w": torch.tensor([2.0]).half()}
    for folder, kept in ((run / "model" / "vae", weights), (out / "vae", other_decoder)):
        folder.mkdir(parents=True)
        safetensors.torch.save_file(kept, folder / "diffusion_pytorch_model.safetensors")
    assert "unet" in bundle({"unet": run}, out)
    other = {"encoder.w": torch.tensor([1.0, 0.2]), "decoder.w": torch.tensor([1.0])}
    safetensors.torch.save_file(other, out / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(TrainingError, match="a different encoder"):
        bundle({"unet": run}, out)
    assert bundle({"unet": run, "vae": run}, out)[-1] == "vae"


def test_a_part_that_went_on_from_the_bundled_one_keeps_how_that_was_trained(tmp_path):
    part = tmp_path / "run" / "model" / "listener"
    part.mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.tensor([1.0])}, part / "listener.safetensors")
    (part / "config.json").write_text('{"_name_or_path": "/home/someone/listener", "hidden": 4}')
    out = tmp_path / "out"
    write_records(tmp_path / "run")
    bundle({"listener": tmp_path / "run"}, out)
    assert json.loads((out / "listener" / "config.json").read_text()) == {"hidden": 4}
    assert not list((out / "training").glob("*-1.*"))
    (tmp_path / "run" / "config.json").write_text('{"model": {"checkpoint": "bundled"}}')
    bundle({"listener": tmp_path / "run"}, out)
    assert (out / "training" / "listener-1.json").read_text() == '{"seed": 3}'
    assert "bundled" in (out / "training" / "listener.json").read_text()
    curves = sorted(path.name for path in (out / "training").glob("*.csv"))
    assert curves == ["listener-1.csv", "listener.csv"]
    (tmp_path / "run" / "config.json").write_text('{"model": {"pretrained": "bundled"}}')
    bundle({"listener": tmp_path / "run"}, out)
    assert (out / "training" / "listener-1.json").read_text() == '{"seed": 3}'
    assert "checkpoint" in (out / "training" / "listener-2.json").read_text()


def test_auto_encoders_are_told_apart_by_weights_and_settings():
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE)
    first = vae_digest(vae)
    assert vae_digest(vae.eval()) == first
    with torch.no_grad():
        next(vae.parameters()).flatten()[0] += 1e-3
    second = vae_digest(vae)
    vae.register_to_config(scaling_factor=0.5)
    assert len({first, second, vae_digest(vae)}) == 3
