from __future__ import annotations

import shutil

import pytest

from attnviz.models.conditioning import TextConditioner
from attnviz.testing import ENCODERS, make_tokenizer, write_adapter_checkpoint


@pytest.fixture(scope="session")
def tokenizers():
    return {kind: make_tokenizer(kind) for kind in ENCODERS}


@pytest.fixture(scope="session")
def four_encoders(tmp_path_factory):
    """A published-layout checkpoint with one encoder of each kind."""
    return write_adapter_checkpoint(tmp_path_factory.mktemp("four"), encoders=ENCODERS)


@pytest.fixture(scope="session")
def conditioner(four_encoders):
    return TextConditioner.from_pretrained(four_encoders)


@pytest.fixture(scope="session")
def text_parts(tmp_path_factory):
    """Copies of what the text room reads of a checkpoint; the whole one is written once per kind."""
    written = {}

    def copy(folder, *, encoders=("clip",), published=True):
        key = (encoders, published)
        if key not in written:
            place = tmp_path_factory.mktemp("whole")
            written[key] = write_adapter_checkpoint(place, encoders=encoders, published=published)
        folder.mkdir(exist_ok=True)
        for part in written[key].iterdir():
            if part.is_file():
                shutil.copy(part, folder)
            elif part.name.startswith(("text_encoder", "condition_adapter")):
                shutil.copytree(part, folder / part.name)
        return folder

    return copy
