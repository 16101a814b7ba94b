"""Pipelines of diffusers: each is traced as it works untraced, or refused by name before anything runs."""

from __future__ import annotations

import re

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

import attnviz
from attnviz.audio import SpectrogramGrid
from attnviz.errors import CaptureError, MapsError
from attnviz.testing.models import UNET_CONFIG

PROMPT = "a dog barks, then rain falls"
IMAGE = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(3))
MASK = torch.zeros(1, 1, 64, 128)
MASK[..., 64:] = 1
SIZE = {"height": 64, "width": 128}


def unet(**changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(**{**UNET_CONFIG, **changes}, cross_attention_dim=32).eval()


def controlnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = diffusers.ControlNetModel.from_unet(unet())
        for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.5)  # they begin as zeros, which add nothing
        return net


def adapter():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.T2IAdapter(in_channels=3, channels=[16, 32, 32, 32], num_res_blocks=2, downscale_factor=8)


GRID = SpectrogramGrid(height=64, width=128)
WORKS = {
    "StableDiffusionPipeline": (dict, SIZE),
    "StableDiffusionImg2ImgPipeline": (dict, {"image": IMAGE}),
    "StableDiffusionInpaintPipeline": (dict, {"image": IMAGE, "mask_image": MASK, **SIZE}),
    "StableDiffusionControlNetPipeline": (lambda: {"controlnet": controlnet()}, {"image": IMAGE}),
    "StableDiffusionControlNetImg2ImgPipeline": (
        lambda: {"controlnet": controlnet()}, {"image": IMAGE, "control_image": IMAGE.flip(-1)}
    ),
    "StableDiffusionControlNetInpaintPipeline": (
        lambda: {"controlnet": controlnet()},
        {"image": IMAGE, "mask_image": MASK, "control_image": IMAGE.flip(-1), **SIZE},
    ),
    "StableDiffusionAdapterPipeline": (lambda: {"adapter": adapter()}, {"image": IMAGE, **SIZE}),
    "LatentConsistencyModelPipeline": (
        lambda: {"unet": unet(time_cond_proj_dim=32), "scheduler": diffusers.LCMScheduler()}, SIZE
    ),
    "LatentConsistencyModelImg2ImgPipeline": (
        lambda: {"unet": unet(time_cond_proj_dim=32), "scheduler": diffusers.LCMScheduler()}, {"image": IMAGE}
    ),
    "StableDiffusionDepth2ImgPipeline": (
        lambda: {"unet": unet(in_channels=5), "depth_estimator": None},
        {"image": IMAGE, "depth_map": torch.rand(1, 64, 128, generator=torch.Generator().manual_seed(4))},
    ),
}  # fmt: skip
SAME_LOOP = {"AltDiffusionPipeline", "AltDiffusionImg2ImgPipeline", "StableDiffusionLDM3DPipeline"}
"""Let in, and not built here: StableDiffusionPipeline's loop with other encoders, or another image decoder."""


@pytest.fixture
def base(plain_checkpoint):
    return StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)


def made(base, name):
    """A pipeline of that class, and what it is called with."""
    kind = getattr(diffusers, name)
    parts, call = WORKS[name]
    names = kind.__init__.__code__.co_varnames
    own = {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }
    given = {**base.components, **own, **parts()}
    pipe = kind(**{key: value for key, value in given.items() if key in names})
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"num_inference_steps": 3, "output_type": "latent", **call}


def run(pipe, call, seed=0):
    return pipe(PROMPT, generator=torch.Generator().manual_seed(seed), **call)[0]


@pytest.mark.parametrize("name", WORKS)
def test_traced_as_untraced(base, name):
    pipe, call = made(base, name)
    plain = run(pipe, call)
    with attnviz.trace(pipe, grid=GRID) as trace:
        traced = run(pipe, call)
    assert torch.equal(plain, traced)
    assert trace.maps.complete
    assert trace.maps.provenance["guidance_scale"] == pipe.guidance_scale
    assert trace.maps.heatmap("rain").shape == (8, 16)


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("StableDiffusionControlNetPipeline", {"controlnet_conditioning_scale": 0.5}, r"inputs\.controlnet"),
        ("StableDiffusionControlNetPipeline", {"image": IMAGE.flip(-1)}, r"inputs\.controlnet"),
        ("StableDiffusionControlNetPipeline", {"control_guidance_end": 0.5}, r"inputs\.controlnet"),
        ("StableDiffusionAdapterPipeline", {"adapter_conditioning_scale": 0.5}, r"inputs\."),
        ("StableDiffusionAdapterPipeline", {"image": IMAGE.flip(-1)}, r"inputs\."),
        ("LatentConsistencyModelPipeline", {"guidance_scale": 4.0}, "guidance_scale"),
        (
            "StableDiffusionDepth2ImgPipeline",
            {"depth_map": WORKS["StableDiffusionDepth2ImgPipeline"][1]["depth_map"].flip(-1)},
            "depth_map",
        ),
    ],
)
def test_what_conditions_a_run_tells_it_apart(base, name, change, field):
    pipe, call = made(base, name)
    with attnviz.trace(pipe, grid=GRID) as trace:
        run(pipe, call, seed=1)
        run(pipe, call, seed=2)
        run(pipe, {**call, **change}, seed=1)
    one, two, other = trace.runs
    assert attnviz.AttentionMaps.merge([one, two]).images == 2
    with pytest.raises(MapsError, match=f"differ in {field}"):
        attnviz.AttentionMaps.merge([one, other])


def test_guidance_by_embedding_is_seen_by_what_the_u_net_gets(base):
    """Also where nobody says so: the embedding is an input as others are."""
    pipe, call = made(base, "LatentConsistencyModelPipeline")
    with attnviz.trace(pipe, grid=GRID) as trace:
        run(pipe, {**call, "guidance_scale": 8.5})
        run(pipe, {**call, "guidance_scale": 4.0})
    one, other = (maps.provenance["inputs"]["unet"] for maps in trace.runs)
    assert one != other


def test_every_pipeline_of_diffusers_is_tested_or_refused():
    """Of a class that a new diffusers brings, this asks which it is to be."""
    let_in = set()
    for name in dir(diffusers):
        kind = getattr(diffusers, name)
        if not name.endswith("Pipeline") or not hasattr(kind, "__init__") or not isinstance(kind, type):
            continue
        wanted = getattr(kind.__init__, "__annotations__", {})
        if "unet" not in wanted or "dummy" in kind.__module__:
            continue
        pipe = object.__new__(kind)
        two = "text_encoder_2" in wanted
        vars(pipe).update(unet=_of_kind(wanted["unet"]), **({"text_encoder_2": None} if two else {}))
        try:
            attnviz.tracing.keys.check_pipeline(pipe, "traced")
        except CaptureError as error:
            assert str(error).startswith(f"{name} cannot be traced")
        else:
            let_in.add(name)
    assert let_in == {*WORKS, *SAME_LOOP}


def _of_kind(annotation):
    """An empty U-Net of the annotated class; of several, the one that the pipeline makes of the plain one."""
    names = re.findall(r"\w*UNet\w*", str(annotation))
    special = [name for name in names if name != "UNet2DConditionModel"]
    kind = getattr(diffusers, special[0], diffusers.UNet2DModel) if special else UNet2DConditionModel
    return kind.__new__(kind)
