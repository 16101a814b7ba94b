"""The environment in which all tools are measured."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parents[1]
FOLDER = HERE / ".envs" / "peers"
_REQUIREMENTS = HERE / "peers.txt"
_WITHOUT_DEPENDENCIES = HERE / "peers-nodeps.txt"


def peers_python() -> Path:
    """Return the interpreter of the environment, which is created if missing or out of date.

    Raises
    ------
    subprocess.CalledProcessError
        If pip fails; its output is on the terminal.
    """
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = _REQUIREMENTS.read_text(encoding="utf-8") + _WITHOUT_DEPENDENCIES.read_text(encoding="utf-8")
    stamp = FOLDER / "installed.txt"  # written last, so that an interrupted installation is repeated
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print("Installing the other tools into a separate environment (once) ...", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "-qq"]
    subprocess.run([*install, "-r", str(_REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", "-r", str(_WITHOUT_DEPENDENCIES)], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python
