"""Check whether an Ogg file is complete."""

from __future__ import annotations

_HEADER = 27  # bytes before a page's table of segments
_END_OF_STREAM = 4


def ogg_damage(content: bytes) -> str | None:
    """Return what is wrong with the pages of an Ogg file, or None.

    Decoders return the rest of a truncated file without an error, and recordings differ in length, so neither
    shows the damage. A complete file ends with a complete page that is marked as the last (RFC 3533).

    Parameters
    ----------
    content : bytes
        The file. The content of the pages is not checked.
    """
    if not content.startswith(b"OggS"):
        return "not an Ogg file" if content else "an empty file"
    position = 0
    flags = 0
    while position < len(content):
        table = position + _HEADER
        if content[position : position + 4] != b"OggS":
            return "damaged between two pages"
        segments = content[table : table + content[table - 1]] if table <= len(content) else b""
        end = table + len(segments) + sum(segments)
        if table > len(content) or len(segments) < content[table - 1] or end > len(content):
            return "truncated within a page"
        flags = content[position + 5]
        position = end
    return None if flags & _END_OF_STREAM else "truncated: its last page is missing"
