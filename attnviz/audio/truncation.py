"""Check whether an audio file ends before its stated length, which decoders do not report."""

from __future__ import annotations

import struct

from attnviz.audio.ogg import ogg_damage

_UNKNOWN = 0x7FFFF000  # bytes; programs write 0, or this and more, if the length is not yet known
_TAG_PLACE = 4096  # bytes after the first frame within which an MP3's Xing or Info tag begins
_MP3_SLACK = 2 * 1152  # number of samples by which decoders and encoders differ at the ends


def missing_bytes(content: bytes) -> str | None:
    """Describe how a WAV, AIFF, AU or Ogg file breaks off; return None if it does not, or for other formats.

    Parameters
    ----------
    content : bytes
        The file.

    Returns
    -------
    str or None
        For example ``"its header states 32000 bytes of samples, and 16000 are there"``.
    """
    kind = content[:4]
    if kind == b"OggS":
        damage = ogg_damage(content)
        return damage if damage is not None and damage.startswith("truncated") else None
    if kind in (b"RIFF", b"RIFX", b"RF64") and content[8:12] == b"WAVE":
        return _chunk(content, b"data", ">" if kind == b"RIFX" else "<")
    if kind == b"FORM" and content[8:12] in (b"AIFF", b"AIFC"):
        return _chunk(content, b"SSND", ">")
    if kind == b".snd" and len(content) >= 12:
        start, stated = struct.unpack_from(">II", content, 4)
        return _shortfall(stated, len(content) - start)
    return None


def missing_samples(content: bytes, stated: int, decoded: int) -> str | None:
    """Describe how an MP3 with a length in a Xing or Info tag breaks off, or return None.

    Parameters
    ----------
    content : bytes
        The file.
    stated, decoded : int
        Number of samples according to the header, and number of decoded samples.
    """
    first = _after_id3(content)
    head = content[first : first + _TAG_PLACE]
    if head[:1] != b"\xff" or not (b"Xing" in head or b"Info" in head) or stated - decoded <= _MP3_SLACK:
        return None
    return f"its header states {stated} samples, and {decoded} are there"


def _chunk(content: bytes, wanted: bytes, order: str) -> str | None:
    at, long = 12, 0
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from(f"{order}I", content, at + 4)[0]
        if name == b"ds64" and at + 24 <= len(content):  # RF64: sizes beyond 32 bits
            long = struct.unpack_from("<Q", content, at + 16)[0]
        if name == wanted:
            return _shortfall(
                long if size == 0xFFFFFFFF and long else size, len(content) - at - 8, whole=bool(long)
            )
        at += 8 + size + size % 2
    return None


def _shortfall(stated: int, there: int, *, whole: bool = False) -> str | None:
    known = whole or 0 < stated < _UNKNOWN
    if not known or there >= stated:
        return None
    return f"its header states {stated} bytes of samples, and {there} are there"


def _after_id3(content: bytes) -> int:
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:  # seven bits each
        size = size << 7 | byte & 0x7F
    return 10 + size
