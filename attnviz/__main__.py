"""``python -m attnviz``: the command line."""

from attnviz.cli.app import app

app()
