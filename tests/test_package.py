"""``import attnviz``: light, with its submodules at hand, and silent unless its logger is listened to."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from documentation import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def said(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_submodules_are_imported_on_first_use():
    code = """
import sys, attnviz
assert not {"torch", "pandas", "matplotlib", "attnviz.events"} & set(sys.modules)
print(attnviz.events.FORMATS[0], attnviz.testing.__name__, hasattr(attnviz, "nosuch"), hasattr(attnviz, "_nosuch"))
print("plots" in dir(attnviz), "align" in dir(attnviz))
from attnviz import nosuch
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["tsv attnviz.testing False False", "True True"]
    assert ended.stderr.splitlines()[-1].startswith("ImportError: cannot import name 'nosuch' from 'attnviz'")


def test_what_is_done_is_logged_and_not_printed():
    code = """
import sys, logging, numpy as np
import attnviz
noise = np.random.default_rng(0).standard_normal(16_000).astype("float32") / 9
attnviz.listen(noise)
print("now aloud", file=sys.stderr)
logging.basicConfig(); logging.getLogger("attnviz").setLevel("INFO")
attnviz.listen(noise)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout == ""
    assert "transformers" not in ended.stderr
    silent, aloud = ended.stderr.split("now aloud")
    assert silent == ""
    assert "INFO:attnviz.listener.listening:heard" in aloud


def test_the_lock_has_every_requirement_in_a_version_that_is_allowed():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, line
            assert canonicalize_name(name) not in pinned, line
            pinned[canonicalize_name(name)] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = map(Requirement, extras.pop("all"))
    assert everything.extras == set(extras)  # what `make lock` installs
    wanted = [Requirement(one) for some in (project["dependencies"], *extras.values()) for one in some]
    missing = [str(one) for one in wanted if pinned.get(canonicalize_name(one.name), "0") not in one.specifier]
    assert missing == []


def test_without_pyarrow_all_but_corpora_can_be_imported():
    code = """
import importlib, pkgutil, sys
sys.modules["pyarrow"] = None
import numpy as np, attnviz
names = [each.name for each in pkgutil.walk_packages(attnviz.__path__, "attnviz.", onerror=lambda name: None)]
others = [name for name in names if not name.startswith("attnviz.corpus") and not name.endswith("__main__")]
assert len(others) > 200 and "attnviz.corpus" in names
for name in others:
    importlib.import_module(name)
assert len(attnviz.listen(np.zeros(16_000, dtype=np.float32)).events) == 0
from attnviz.cli.app import app
app(["corpus", "status", "nowhere"])
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install pyarrow" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
