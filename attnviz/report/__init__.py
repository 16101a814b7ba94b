"""Write a self-contained, interactive HTML page of saved runs. No model is loaded.

`write_report` implements ``attnviz report``, and `explore` shows the same page in a notebook. The page consists of
``template.html``, ``style.css`` and the JavaScript files, which display the payload (`payload_of`).
"""

from attnviz.report.notebook import Explorer, explore
from attnviz.report.page import page_of, write_report
from attnviz.report.payload import payload_of

__all__ = ["Explorer", "explore", "page_of", "payload_of", "write_report"]
