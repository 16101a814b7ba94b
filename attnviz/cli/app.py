"""The command line: commands of `attnviz.cli.commands`, none of which imports PyTorch before it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from attnviz.cli.commands.align import align
from attnviz.cli.commands.bundle import bundle
from attnviz.cli.commands.clean import clean
from attnviz.cli.commands.corpus import corpus
from attnviz.cli.commands.data import data
from attnviz.cli.commands.diagnose import diagnose
from attnviz.cli.commands.doctor import doctor
from attnviz.cli.commands.edit import edit
from attnviz.cli.commands.evaluate import evaluate
from attnviz.cli.commands.explain import explain
from attnviz.cli.commands.figures import figures
from attnviz.cli.commands.generate import generate
from attnviz.cli.commands.listen import listen
from attnviz.cli.commands.report import report
from attnviz.cli.commands.solo import solo
from attnviz.cli.commands.train import train
from attnviz.cli.terminal import Json, Quiet, before_command, console

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes cut the names of options at 80 columns
    help="Map each word of a prompt to the time and frequency of its sound.",
    epilog="Exit status: 0 success, 1 error, 2 wrong usage, 3 partial result, 130 interrupted.",
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Print the version on request."""
    if version:
        import attnviz

        console.print(f"attnviz {attnviz.__version__}")
        raise typer.Exit
    before_command(context, quiet, as_json)


for _command in (generate, listen, align, explain, solo, report, figures, evaluate, diagnose, doctor):
    app.command()(_command)
app.add_typer(edit, name="edit")
app.add_typer(corpus, name="corpus")
app.command()(train)
app.command()(bundle)
app.command()(clean)
app.add_typer(data, name="data")
