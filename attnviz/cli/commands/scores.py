"""Tables of events and scores on the terminal, as ``attnviz align`` and ``attnviz explain`` print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from attnviz.cli.terminal import printable, say, show

if TYPE_CHECKING:
    import pandas as pd

    from attnviz.alignment import Alignment


def show_scores(table: pd.DataFrame, result: Alignment) -> None:
    """Print the events and the scores of each phrase, then the pooled scores, verdicts and their meaning."""
    from attnviz.alignment import report
    from attnviz.events import scorable
    from attnviz.events.origin import heard

    timed = table[table["onset"].notna()]
    given = {True: "given", False: "heard by the listener"}
    _show_columns(
        "Events scored",
        {
            "event": timed["label"],
            "onset (s)": [f"{onset:.2f}" for onset in timed["onset"]],
            "offset (s)": [f"{offset:.2f}" for offset in timed["offset"]],
            "origin": [given[not one] for one in heard(timed)],
            "not scored": ["" if lasting else "zero length" for lasting in scorable(timed)],
        },
    )
    phrases = result.table[result.table["method"] == "map"]
    forms = {
        "ROC-AUC": ("roc_auc", ".3f"),
        "Pearson": ("pearson", ".3f"),
        "onset error (s)": ("onset_error", "+.2f"),
    }
    scores = {
        title: [
            "" if reason else f"{value:{form}}"
            for value, reason in zip(phrases[name], phrases["undefined"], strict=True)
        ]
        for title, (name, form) in forms.items()
    }
    _show_columns("Phrases", {"phrase": phrases["text"], **scores, "not scored": phrases["undefined"]})
    for line in report.opening(result):
        say(line)
    if result.counts["scored"]:
        pooled_rows = report.score_rows(result.pooled)
        named = {str(name): pooled_rows[name] for name in pooled_rows.columns}
        _show_columns("Scores and controls", {"score": pooled_rows.index, **named})
        for line in (*report.verdicts(result), "", *report.meaning_lines(result.pooled)):
            say(line)


def _show_columns(title: str, columns: Mapping[str, Iterable[object]]) -> None:
    """Print a table without its empty columns, or nothing if it has no rows."""
    cells = {name: [escape(printable(str(cell))) for cell in column] for name, column in columns.items()}
    filled = {name: column for name, column in cells.items() if any(column)}
    if filled:
        table = Table(*map(escape, filled), title=escape(title), title_justify="left")
        for row in zip(*filled.values(), strict=True):
            table.add_row(*row)
        show(table)
