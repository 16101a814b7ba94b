"""Options that the benchmarks have in common, and the model that they name."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Others are imported where they are used: a process that measures starts without them.
from attnviz import bundled

if TYPE_CHECKING:
    from attnviz.listener.folder import TrainedListener

RESULTS = Path(__file__).resolve().parents[2] / "results"
_SAMPLING = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "guidance_interval": "guidance_interval",
}
_MEASURED = ("quality.json", "readout.json")
"""Output of the studies that is shipped with the weights."""


def parser(
    doc: str | None, name: str, parts: Sequence[str] = (), *, data: bool | None = None, model: bool = True
) -> argparse.ArgumentParser:
    """Return a parser with ``--out``, ``--fresh`` and ``--tiny``, and the other common options that are asked for.

    Parameters
    ----------
    doc : str
        Text of the help.
    name : str
        Folder of the results in ``results/``.
    parts : sequence of str
        Parts of the study, for ``--parts``.
    data : bool, optional
        Whether ``--data``, the folder of ESC-10, is required. Default: there is no such option.
    model : bool
        Whether there is ``--model``.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data is not None:
        made.add_argument("--data", type=Path, required=data, help="folder of ESC-10 from `attnviz data esc10`")
    if model:
        made.add_argument("--model", help="checkpoint folder or hub name (default: the bundled model)")
    made.add_argument("--out", type=Path, default=RESULTS / name, help=f"output folder (default: results/{name})")
    if parts:
        made.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    made.add_argument("--fresh", action="store_true", help="measure the parts again")
    made.add_argument("--tiny", action="store_true", help="smoke test")
    return made


@dataclass(frozen=True)
class Model:
    """The model of a study, loaded once in each process, on first use.

    Parameters
    ----------
    name : str, optional
        Checkpoint folder or hub name. Default: the bundled model.
    listener_folder : path-like, optional
        Folder of another listener than ``listener/`` of the checkpoint.
    device : str
    """

    name: str | None = None
    listener_folder: str | Path | None = None
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Folder of the checkpoint, which may not exist if it is on the hub."""
        return Path(self.name) if self.name else bundled.FOLDER

    @property
    def pipe(self) -> Any:
        """The pipeline, without progress bars."""
        return _pipe(self.name, self.device)

    @property
    def listener(self) -> TrainedListener:
        """The given listener, that of the checkpoint, or the bundled one if the checkpoint has none."""
        own = self.folder / "listener" if self.name else None
        return _listener(self.listener_folder or (own if own is not None and own.is_dir() else None))

    def listen(self, audio: Any) -> Any:
        """Return what the listener hears in a clip at 16 kHz."""
        import attnviz

        return attnviz.listen(audio, model=self.listener.listener, decoding=self.listener.decoding)

    @property
    def sampling(self) -> dict[str, Any]:
        """Recommended steps and guidance by their names in studies. Empty if the checkpoint is on the hub."""
        if not self.folder.is_dir():
            return {}
        from attnviz.models.pipelines.recommended import read_recommended

        recommended = read_recommended(self.folder)
        return {short: recommended.value(name) for short, name in _SAMPLING.items()}

    @property
    def fingerprint(self) -> str:
        """Digest of weights and settings, which identifies a study. Of a checkpoint on the hub, its name."""
        if not self.folder.is_dir():
            return str(self.name)
        known = hashlib.sha256()
        for path in sorted([*self.folder.rglob("*.safetensors"), *self.folder.rglob("*.json")]):
            if path.name not in _MEASURED:
                known.update(path.relative_to(self.folder).as_posix().encode() + path.read_bytes())
        return known.hexdigest()[:16]


@cache
def _pipe(name: str | None, device: str) -> Any:
    import attnviz

    pipe = (attnviz.load(name) if name else attnviz.load()).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def _listener(folder: str | Path | None) -> TrainedListener:
    from attnviz.listener.folder import trained_listener

    return trained_listener(folder)
