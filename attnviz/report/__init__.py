"""One self-contained HTML file of a saved run, to be looked at and listened to; loads no model.

`write_report` is ``attnviz report``. ``template.html``, ``style.css`` and ``app.js`` are the page; the program
builds everything from the payload (`payload_of`), so that it serves a page and a notebook alike.
"""

from attnviz.report.page import page_of, write_report
from attnviz.report.payload import payload_of

__all__ = ["page_of", "payload_of", "write_report"]
