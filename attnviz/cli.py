"""The command line: the commands of `attnviz.commands`, none of which imports PyTorch before it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from attnviz.commands.align import align
from attnviz.commands.bundle import bundle
from attnviz.commands.clean import clean
from attnviz.commands.data import data
from attnviz.commands.diagnose import diagnose
from attnviz.commands.doctor import doctor
from attnviz.commands.edit import edit
from attnviz.commands.explain import explain
from attnviz.commands.figures import figures
from attnviz.commands.generate import generate
from attnviz.commands.listen import listen
from attnviz.commands.report import report
from attnviz.commands.train import train
from attnviz.terminal import console

app = typer.Typer(
    no_args_is_help=True,
    help="Which sound did each word of a prompt make, when, and at which frequencies?",
    epilog="Exit status: 0 done, 1 refused, 2 wrong usage, 3 done in part, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Show the version where asked for."""
    if version:
        import attnviz

        console.print(f"attnviz {attnviz.__version__}")
        raise typer.Exit


for _command in (generate, listen, align, explain, report, figures, diagnose, doctor):
    app.command()(_command)
app.add_typer(edit, name="edit")
app.command()(train)
app.command()(bundle)
app.command()(clean)
app.add_typer(data, name="data")
