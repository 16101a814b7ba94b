"""A tiny pipeline, and a plain generation of two prompts to compare edits with."""

from __future__ import annotations

import pytest

import attnviz


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return quiet(attnviz.load(adapter_checkpoint))


@pytest.fixture(scope="module")
def two(two_encoder_checkpoint):
    return quiet(attnviz.load(two_encoder_checkpoint))


@pytest.fixture(scope="module")
def plain(plain_checkpoint):
    return quiet(attnviz.load(plain_checkpoint))


@pytest.fixture
def no_model_runs(pipe, monkeypatch):
    for part in (pipe.unet, pipe.vae, pipe.conditioner, pipe.vocoder):
        monkeypatch.setattr(part, "forward", lambda *a, **k: pytest.fail("a model ran"))
    monkeypatch.setattr(pipe.vae, "encode", lambda *a, **k: pytest.fail("a model ran"))
