"""The environment in which the peers, and attnviz beside them, are measured."""

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
    """Interpreter of the peers' environment, which is made first where it is missing or out of date.

    Raises
    ------
    subprocess.CalledProcessError
        If pip fails; what it said is on the terminal.
    """
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = _REQUIREMENTS.read_text(encoding="utf-8") + _WITHOUT_DEPENDENCIES.read_text(encoding="utf-8")
    stamp = FOLDER / "installed.txt"  # written last: an installation that was cut is made again
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print("Installing the peers into an environment of their own (once) ...", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "-qq"]
    subprocess.run([*install, "-r", str(_REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", "-r", str(_WITHOUT_DEPENDENCIES)], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python
