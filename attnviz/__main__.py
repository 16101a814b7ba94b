"""``python -m attnviz``: the command line."""

from attnviz.cli import app

app()
