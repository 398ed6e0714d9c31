"""JSON files of model folders, read as typed structs; what is wrong with one is said by its file, key and value."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from stages.core.errors import ModelError
from stages.core.text_file import read_text_file
from stages.core.wire import UNREADABLE

_T = TypeVar("_T")

_VALUE_CHARS = 60
"""Characters of a value in a message, at most."""


def read_json(path: Path, kind: type[_T]) -> _T:
    """The file as `kind`. Raises ModelError naming the file and what is wrong with it."""
    try:
        found = _decode(read_text_file(path))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; is this a folder of `optimum-cli export openvino`?") from error
    except (*UNREADABLE, ValueError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ModelError(f"{path}: {not_served(error, found, kind)}") from error


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        if _LOWEST.encode() not in text:
            raise
        return json.loads(text, parse_constant=_constant)


_LOWEST = "-Infinity"
"""The one number outside JSON that is read: diffusers writes it as `lambda_min_clipped` of every multistep solver."""


def _constant(name: str) -> float:
    if name != _LOWEST:
        raise ValueError(f"{name} is no number")
    return -math.inf


_KEY = re.compile(r"(?<= - at `\$\.)\w+")


def not_served(error: msgspec.ValidationError, found: object, kind: type[Any]) -> str:
    """The message for what msgspec refuses in `found`, which was to become a `kind`: key, value, and what is served."""
    match = _KEY.search(str(error))
    if match is None or not isinstance(found, Mapping):
        return str(error)
    key, text = match[0], str(error).partition(" - at `")[0]
    said = shown(found.get(key))
    choices = get_args(get_type_hints(kind)[key]) if text.startswith("Invalid enum value") else ()
    if not choices:
        return f"{key} {said} is not served: {text[:1].lower()}{text[1:]}"
    *others, last = map(str, choices)
    return (
        f"{key} {said} is not served; {', '.join(others)}{' or ' if others else ''}{last} {'are' if others else 'is'}"
    )


def shown(value: object) -> str:
    """A value of JSON in a message: text without quotes, all else as JSON has it, what is long cut off."""
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)
    return text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}..."
