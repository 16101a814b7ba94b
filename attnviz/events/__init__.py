"""Read, check and write tables of sound events.

An event table is a `pandas.DataFrame` with one row per event:

=========  ==================================================================================
column     content
=========  ==================================================================================
clip       name of the audio file
label      the phrase or sound class
onset      seconds from the start of the clip; NaN in a row that marks a clip without events
offset     seconds, not before `onset`; NaN exactly where `onset` is
low, high  Hz, optional; NaN where unknown
span       (start, end) characters of the phrase in the caption, optional; None where unknown
origin     "listener" in rows of `attnviz.listen`, optional; other events were given by the user
=========  ==================================================================================

Additional columns, such as `origin`, follow these unchanged.

:func:`read_events` reads a file of any supported format. It clips offsets that lie just past the end of the clip,
and counts these, events of zero length and clips without events. The readers of single formats (`read_tsv` and
so on) return the rows of a file unchanged.
"""

from attnviz.events.activity import column_activity
from attnviz.events.audacity import read_audacity, write_audacity
from attnviz.events.audiogrounding import read_audiogrounding
from attnviz.events.clips import ClipFiles, clip_seconds, match_clips
from attnviz.events.delimited import is_tsv, read_csv, read_tsv, write_csv, write_tsv
from attnviz.events.jams import read_jams, write_jams
from attnviz.events.limits import PAST_THE_END, fit_to_clips
from attnviz.events.raven import read_raven
from attnviz.events.reading import FORMATS, read_events
from attnviz.events.spans import Heard, events_of, token_spans, with_spans
from attnviz.events.table import OPTIONAL, REQUIRED, event_table, scorable
from attnviz.events.textgrid import read_textgrid

__all__ = [
    "FORMATS",
    "OPTIONAL",
    "PAST_THE_END",
    "REQUIRED",
    "ClipFiles",
    "Heard",
    "clip_seconds",
    "column_activity",
    "event_table",
    "events_of",
    "fit_to_clips",
    "is_tsv",
    "match_clips",
    "read_audacity",
    "read_audiogrounding",
    "read_csv",
    "read_events",
    "read_jams",
    "read_raven",
    "read_textgrid",
    "read_tsv",
    "scorable",
    "token_spans",
    "with_spans",
    "write_audacity",
    "write_csv",
    "write_jams",
    "write_tsv",
]
