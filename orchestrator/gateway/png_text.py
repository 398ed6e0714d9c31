"""Text chunks of a PNG file, and the parameters in them as AUTOMATIC1111's web UI writes them. Pure.

The chunks are read without decoding the picture: see https://www.w3.org/TR/png-3/#11textinfo.
"""

import re
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_TEXT_BYTES = 1 << 20
"""Bytes of text that are read of one file, at most; compressed text could be a thousand times as long as it looks."""

_LINE_CHARS = 1 << 16
"""How much of a line of parameters is taken apart."""

_FIELD = re.compile(r'(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


def read(file: bytes) -> dict[str, str]:
    """The texts of a PNG by keyword, as far as they can be read; none of what is no PNG."""
    found: dict[str, str] = {}
    if not file.startswith(SIGNATURE):
        return found
    at, left = len(SIGNATURE), _TEXT_BYTES
    while at + 12 <= len(file) and left > 0:
        length, kind = int.from_bytes(file[at : at + 4]), file[at + 4 : at + 8]
        chunk = file[at + 8 : at + 8 + length] if kind in _READERS else b""
        at += 12 + length
        keyword, nul, rest = chunk.partition(b"\0")
        if nul and (text := _READERS[kind](rest, left)) is not None:
            left -= len(text)
            found.setdefault(keyword[:79].decode("latin-1"), text)
    return found


def parameters(text: str) -> dict[str, str]:
    """The fields of generation parameters: prompts, and what the last line says as "Steps: 20, Sampler: Euler"."""
    *lines, last = text.strip().split("\n")
    fields = {match[1]: match[2].strip('"').strip() for match in _FIELD.finditer(last[:_LINE_CHARS])}
    if "Steps" not in fields:  # then it is a prompt's last line
        lines, fields = [*lines, last], {}
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    width, by, height = fields.get("Size", "").partition("x")
    sizes = {"Size-1": width, "Size-2": height} if by else {}
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip()} | fields | sizes


def _plain(data: bytes, left: int) -> str | None:
    return data[:left].decode("latin-1")


def _compressed(data: bytes, left: int) -> str | None:
    text = _inflate(data[1:], left)
    return None if text is None else text.decode("latin-1")


def _international(data: bytes, left: int) -> str | None:
    compressed, rest = data[:1] == b"\1", data[2:]
    _language, _, rest = rest.partition(b"\0")
    _translated, _, rest = rest.partition(b"\0")
    text = _inflate(rest, left) if compressed else rest[:left]
    return None if text is None else text.decode("utf-8", "replace")


def _inflate(data: bytes, left: int) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, left)
    except zlib.error:
        return None


_READERS = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}
