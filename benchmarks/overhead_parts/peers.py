"""The environment in which all tools are measured."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).parents[1]
ROOT = HERE.parent
FOLDER = HERE / ".envs" / "peers"
_PEERS = HERE / "peers.txt"
_LOCK = ROOT / "constraints.txt"


def peers_python() -> Path:
    """Return the interpreter of the environment, which is created if missing or out of date.

    It holds the requirements of attnviz, in the versions of ``constraints.txt``, and the other tools without their
    own requirements.

    Raises
    ------
    subprocess.CalledProcessError
        If pip fails; its output is on the terminal.
    """
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = "\n".join([*requirements, _LOCK.read_text(encoding="utf-8"), _PEERS.read_text(encoding="utf-8")])
    stamp = FOLDER / "installed.txt"  # written last, so that an interrupted installation is repeated
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print("Installing the other tools into a separate environment (once) ...", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "-qq"]
    locked = ["--constraint", str(_LOCK)]
    # torch goes first: a range that another package asks for would bring the newest build instead.
    subprocess.run([*install, *locked, "torch"], check=True)
    subprocess.run([*install, *locked, *requirements], check=True)
    subprocess.run([*install, "--no-deps", "-r", str(_PEERS)], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python
