"""One self-contained HTML page of saved runs, to be looked at and listened to; loads no model.

`write_report` is ``attnviz report``; `explore` shows the same page in a notebook. ``template.html``, ``style.css``
and the JavaScript files are the page; the program builds everything from the payload (`payload_of`).
"""

from attnviz.report.notebook import Explorer, explore
from attnviz.report.page import page_of, write_report
from attnviz.report.payload import payload_of

__all__ = ["Explorer", "explore", "page_of", "payload_of", "write_report"]
