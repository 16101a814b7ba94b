"""What acted on a model is what is recorded: digests of weights, of module state and of inputs."""

from __future__ import annotations

import copy
import functools
import time

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import nn

import attnviz
from attnviz import bundled
from attnviz.capture import identity
from attnviz.capture.identity import Digests, input_digest, state_digest, tensor_digest, weights_digest
from attnviz.errors import MapsError
from attnviz.maps import FittedReadout
from attnviz.testing.models import make_unet

PROMPT = "a dog barks, then rain falls"
SMALL = {"height": 72, "width": 232, "num_inference_steps": 3, "output_type": "latent"}
LORA = LoraConfig(r=2, target_modules=["attn2.to_q", "attn2.to_k"], init_lora_weights="gaussian")


@pytest.fixture
def unet():
    return seeded_unet()


def seeded_unet(seed=0, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_unet(24)


def add_lora(unet):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet.add_adapter(LORA)
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.5)


def acting(module):
    digests = Digests()
    return weights_digest(module, digests), state_digest(module, digests)


# Tensors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64,
                                   torch.uint8, torch.bool])  # fmt: skip
@pytest.mark.parametrize("size", [0, 1, 7, 65_536, 200_001])
def test_a_digest_tells_any_value_apart_and_no_layout(dtype, size):
    values = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(0)).to(dtype)
    digest = tensor_digest(values)
    assert digest == tensor_digest(values.clone())
    assert digest == tensor_digest(torch.stack([values, values], dim=1)[:, 0])  # every other place in memory
    assert digest != tensor_digest(torch.cat([values, values[:1]])) or size == 0
    assert digest != tensor_digest(values.unsqueeze(0))
    assert digest != tensor_digest(values.to(torch.int32))
    for place in {0, size // 2, size - 1} if size else ():
        other = values.clone()
        other[place] = 1 - other[place].int()
        assert tensor_digest(other) != digest


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9), st.randoms())
@settings(max_examples=50, deadline=None)
def test_order_counts(values, random):
    other = list(values)
    random.shuffle(other)
    same = tensor_digest(torch.tensor(values)) == tensor_digest(torch.tensor(other))
    assert same == (values == other)


def test_memory_layout_and_device_do_not_count():
    image = torch.randn(2, 3, 8, 5)
    assert tensor_digest(image.to(memory_format=torch.channels_last)) == tensor_digest(image)
    assert tensor_digest(image.mT) != tensor_digest(image)
    assert tensor_digest(nn.Parameter(image)) == tensor_digest(image)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.add_(1),
        lambda tensor: tensor.data.add_(1),  # as peft fuses a LoRA: torch's version does not count it
        lambda tensor: setattr(tensor, "data", tensor.data + 1),
        lambda tensor: tensor.zero_(),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_known_digest_is_not_taken_for_a_changed_tensor(change, layout):
    digests, tensor = Digests(), torch.randn(4, 64, 8, 8).to(memory_format=layout)
    before = digests(tensor)
    assert digests(tensor) == before
    change(tensor)
    assert digests(tensor) == tensor_digest(tensor) != before


def test_a_tensor_is_digested_once(monkeypatch):
    asked = []
    monkeypatch.setattr(identity, "tensor_digest", lambda tensor: asked.append(1) or tensor_digest(tensor))
    digests, tensor = Digests(), torch.randn(3, 5)
    assert digests(tensor) == digests(tensor)
    assert len(asked) == 1
    del tensor
    assert not digests._known  # and nothing is kept of one that is gone


def test_tensors_of_inference_mode(unet):
    with torch.inference_mode():
        tensor = torch.ones(3, 4)
        digests = Digests()
        before = digests(tensor)
        tensor.add_(1)
        assert digests(tensor) != before


# Inputs -----------------------------------------------------------------------------------------------


def test_images_of_one_prompt_are_one():
    rows = torch.randn(3, 7, 5)
    digests = Digests()
    one = input_digest({"states": rows, "scale": 0.5}, digests)
    assert input_digest({"scale": 0.5, "states": rows.repeat_interleave(2, dim=0)}, digests) == one
    for other in (rows.repeat(2, 1, 1), rows.flip(0), rows[:2], rows.double(), rows + 1e-6):
        assert input_digest({"states": other, "scale": 0.5}, digests) != one
    assert input_digest({"states": rows, "scale": 0.25}, digests) != one
    assert input_digest({"states": [rows], "scale": 0.5}, digests) != one


# Modules ----------------------------------------------------------------------------------------------


def scaled_by(factor, module, args, output):
    return output * factor


def hook_with_closure(factor):
    def hook(module, args, output):
        return output * factor

    return hook


class Scaled(diffusers.models.attention_processor.AttnProcessor2_0):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor


STATES = {
    "FreeU": lambda unet: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "FreeU, other factors": lambda unet: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.5),
    "a processor": lambda unet: unet.set_attn_processor(Scaled(0.5)),
    "its factor": lambda unet: unet.set_attn_processor(Scaled(0.6)),
    "a hook": lambda unet: unet.mid_block.register_forward_hook(hook_with_closure(2.0)),
    "the value in its closure": lambda unet: unet.mid_block.register_forward_hook(hook_with_closure(3.0)),
    "a partial": lambda unet: unet.mid_block.register_forward_hook(functools.partial(scaled_by, 2.0)),
    "a pre-hook": lambda unet: unet.mid_block.register_forward_pre_hook(lambda module, args: args),
    "a forward": lambda unet: setattr(unet.mid_block, "forward", hook_with_closure(2.0)),
    "a number": lambda unet: setattr(unet.mid_block.attentions[0].transformer_blocks[0].attn2, "scale", 3.0),
    "training": lambda unet: unet.train(),
}


def test_a_vector_is_digested_at_once():
    """Equal neighbours count once, as equal rows do; a million numbers take no million digests."""
    digests = Digests()
    assert input_digest(torch.tensor([7, 7, 3]), digests) == input_digest(torch.tensor([7, 3]), digests)
    assert input_digest(torch.tensor([7, 3, 7]), digests) != input_digest(torch.tensor([7, 3]), digests)
    begun = time.perf_counter()
    input_digest(torch.arange(1_000_000), digests)
    assert time.perf_counter() - begun < 5


def test_what_acts_beside_the_weights():
    plain = acting(seeded_unet())
    found = {}
    for name, change in STATES.items():
        unet = seeded_unet()
        change(unet)
        weights, found[name] = acting(unet)
        assert weights == plain[0], name
    assert len({plain[1], *found.values()}) == len(STATES) + 1, found
    again = seeded_unet()
    STATES["the value in its closure"](again)
    assert acting(again)[1] == found["the value in its closure"]


def test_undone_is_as_before(unet):
    before = acting(unet)
    handle = unet.mid_block.register_forward_hook(hook_with_closure(2.0))
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert acting(unet) != before
    handle.remove()
    unet.disable_freeu()
    assert acting(unet) == before


def test_adapters_count_as_they_act(unet):
    plain = acting(unet)
    add_lora(unet)
    active = acting(unet)
    assert active[0] != plain[0]
    assert identity.active_adapters(unet) == {"default": [4.0]}
    unet.disable_lora()
    assert acting(unet) == plain
    assert identity.active_adapters(unet) == {}
    unet.enable_lora()
    assert acting(unet) == active
    unet.set_adapters(["default"], [0.5])
    scaled = acting(unet)
    assert scaled[0] == active[0]
    assert scaled[1] != active[1]
    digests = Digests()
    weights_digest(unet, digests)
    unet.fuse_lora()
    assert weights_digest(unet, digests) not in (plain[0], active[0])  # with the digests known before
    assert identity.active_adapters(unet) == {}


def test_every_weight_counts(unet):
    digests = Digests()
    before = weights_digest(unet, digests)
    for name, parameter in list(unet.named_parameters())[::40]:
        with torch.no_grad():
            kept = parameter.clone()
            parameter.add_(1)
            assert weights_digest(unet, digests) != before, name
            parameter.copy_(kept)
        assert weights_digest(unet, digests) == before, name


# Runs -------------------------------------------------------------------------------------------------


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded_once):
    return quiet(copy.deepcopy(loaded_once))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def maps_of(pipe, seed, **changes):
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(seed), **{**SMALL, **changes})
    return trace.maps


def other_unet(pipe):
    pipe.unet = seeded_unet(5)


def lora_fused_and_unloaded(pipe):
    add_lora(pipe.unet)
    pipe.fuse_lora()
    pipe.unload_lora_weights()


CHANGES = {
    "LoRA": (lambda pipe: add_lora(pipe.unet), "adapters"),
    "LoRA fused and unloaded": (lora_fused_and_unloaded, r"weights\.unet"),
    "FreeU": (lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), r"state\.unet.*FreeU"),
    "U-Net": (other_unet, r"weights\.unet"),
    "VAE": (lambda pipe: pipe.vae.decoder.conv_out.weight.data.mul_(2), r"weights\.vae"),
    "text encoder": (lambda pipe: pipe.conditioner.adapters[0].norm.weight.data.mul_(2), r"inputs\.unet"),
    "a hook": (lambda pipe: pipe.unet.mid_block.register_forward_hook(hook_with_closure(2.0)), r"state\.unet"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_differs_in_seed_is_merged(pipe, change):
    make, field = CHANGES[change]
    one, two = maps_of(pipe, 1), maps_of(pipe, 2, num_images_per_prompt=2)
    assert attnviz.AttentionMaps.merge([one, two]).images == 3
    make(pipe)
    with pytest.raises(MapsError, match=f"differ in {field}"):
        attnviz.AttentionMaps.merge([one, maps_of(pipe, 1)])


def test_weights_are_digested_once_for_all_traces(pipe, monkeypatch):
    digested, digest = [], identity.tensor_digest
    monkeypatch.setattr(identity, "tensor_digest", lambda tensor: digested.append(tensor) or digest(tensor))
    weights = {id(tensor) for tensor in pipe.unet.parameters()}

    def of_weights(seed):
        digested.clear()
        maps_of(pipe, seed)
        return len({id(tensor) for tensor in digested} & weights)

    assert of_weights(1) == len(weights)
    assert of_weights(2) == 0
    with torch.no_grad():
        pipe.unet.conv_in.bias[0] += 1
    assert of_weights(2) == 1


def test_a_disabled_lora_is_none(pipe):
    plain = maps_of(pipe, 1)
    add_lora(pipe.unet)
    active = maps_of(pipe, 1)
    pipe.disable_lora()
    off = maps_of(pipe, 2)
    assert (active.provenance["adapters"], off.provenance["adapters"]) == ({"default": [4.0]}, {})
    with pytest.raises(MapsError, match="adapters"):
        attnviz.AttentionMaps.merge([off, active])
    assert attnviz.AttentionMaps.merge([plain, off]).images == 2


def test_changes_between_calls_of_one_trace_and_within_a_call(pipe):
    def enable(pipe, step, timestep, tensors):
        pipe.enable_freeu(0.9, 0.2, 1.2, 1.4)
        return tensors

    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
        pipe(PROMPT, generator=seeded(), callback_on_step_end=enable, **SMALL)
        pipe(PROMPT, generator=seeded(), **SMALL)
    off, within, on = (maps.provenance["state"]["unet"] for maps in trace.runs)
    assert within == [off, on]
    assert off != on


def test_what_explain_looked_with(pipe):
    clip = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    look = {"timesteps": (50,), "draws": 1}
    one = attnviz.explain(pipe, clip, PROMPT, **look)
    again = attnviz.explain(pipe, clip, PROMPT, **look, seed=3)
    assert attnviz.AttentionMaps.merge([one, again]).images == 2
    pipe.enable_freeu(0.9, 0.2, 1.2, 1.4)
    with pytest.raises(MapsError, match=r"state\.unet"):
        attnviz.AttentionMaps.merge([one, attnviz.explain(pipe, clip, PROMPT, **look)])


def test_digests_are_the_same_in_another_process_and_with_offloading(pipe, adapter_checkpoint):
    import accelerate

    plain = maps_of(pipe, 0).provenance
    again = quiet(attnviz.load(adapter_checkpoint))
    accelerate.cpu_offload(again.unet, execution_device=torch.device("cpu"))
    assert maps_of(again, 0).provenance == plain
    # Frozen, since saved maps hold digests.
    assert tensor_digest(torch.arange(300_000, dtype=torch.float32)) == "0fb18a63641437b8"


# The bundled model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bundled_model_is_known_by_its_weights(dtype):
    pipe = quiet(attnviz.load(torch_dtype=dtype))
    call = {"width": 256, "num_inference_steps": 1, "height": 256}
    maps = maps_of(pipe, 0, **call)
    assert maps.provenance["model"] == "bundled"
    assert maps.provenance["weights"]["unet"] == bundled.unet_digest(str(dtype).removeprefix("torch."))
    maps.heatmap("dog", readout="fitted")
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config).to(dtype)
    other = maps_of(pipe, 0, **call)
    assert other.provenance["model"] == "bundled, with other weights"
    with pytest.raises(
        MapsError, match="to the bundled model only; these maps are of 'bundled, with other weights'"
    ):
        other.heatmap("dog", readout="fitted")
    with pytest.raises(MapsError, match="model"):
        attnviz.AttentionMaps.merge([maps, other])


def test_the_shipped_readout_is_of_the_shipped_weights():
    maps = FittedReadout.load(bundled.FOLDER / "readout.json").provenance["maps"]
    if "weights" in maps:  # fitted before digests were kept: nothing to compare with
        assert maps["weights"]["unet"] == bundled.unet_digest(maps["dtype"])


def test_digests_cost_little_beside_a_generation():
    """Below 1 % of a call of 20 steps; of 4 steps, which take a fifth of that, below 5 %."""
    pipe = quiet(attnviz.load())
    digests = Digests()
    weights_digest(pipe.unet, digests)  # once for as long as the pipeline lives
    start = time.process_time()
    for _ in range(2):  # as a run does, at its first call and at its end
        weights_digest(pipe.unet, digests), state_digest(pipe.unet, digests)
    spent = time.process_time() - start
    start = time.process_time()
    pipe(PROMPT, num_inference_steps=4, generator=seeded())
    assert spent < 0.05 * (time.process_time() - start)
