"""docs/protocol.md says what stages/core/wire.py says: every message, every field, its type and its default."""

import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

from orchestrator.routing import request
from stages.core import errors, wire
from tests.conftest import ROOT
from tests.unit.docs.markdown import sections

SECTIONS = sections(ROOT / "docs" / "protocol.md")

STRUCTS = [
    struct
    for name, struct in inspect.getmembers(wire, inspect.isclass)
    if issubclass(struct, msgspec.Struct) and struct.__module__ == wire.__name__ and not name.startswith("_")
]

CODES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.TriptychError) and error.__module__ == errors.__name__
]

_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def of_json(hint: Any) -> str:
    """A type in the words of JSON."""
    if hint in _WORDS:
        return _WORDS[hint]
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " ".join(f'`"{value}"`' for value in arguments)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(of_json, arguments))
    if get_origin(hint) is tuple:
        return f"list of {of_json(arguments[0])}"
    return f"`{hint.__name__}`"


def row(struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    """How the table row of a field begins. What the hub sends is always there, so only requests have a default."""
    begin = f"| `{field.encode_name}` | {of_json(field.type)} |"
    if struct not in get_args(wire.ClientMessage):
        return begin
    default = "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"
    return f"{begin} {default} |"


def section(struct: type[msgspec.Struct]) -> str:
    """The part of the document about a struct. Requests and answers of one name are told apart by the heading."""
    tag = struct.__struct_config__.tag
    whose = "request " if struct in get_args(wire.ClientMessage) else "answer " if tag else ""
    name = f"{whose}`{tag or struct.__name__}`"
    found = [text for heading, text in SECTIONS.items() if heading.lower().startswith(name.lower())]
    assert len(found) == 1, f"docs/protocol.md needs one heading that begins with {name}"
    return found[0]


def test_a_quote_has_the_fields_of_a_submit() -> None:
    assert wire.Quote.__struct_fields__ == wire.Submit.__struct_fields__
    assert "Has the fields of `submit`." in section(wire.Quote)


@pytest.mark.parametrize("struct", [struct for struct in STRUCTS if struct is not wire.Quote])
def test_every_message_is_described_field_by_field(struct: type[msgspec.Struct]) -> None:
    lines = section(struct).splitlines()
    rows = [row(struct, field) for field in msgspec.structs.fields(struct)]
    for expected in rows:
        assert any(line.startswith(expected) for line in lines), f"no row begins with: {expected}"
    told = [line for line in lines if line.startswith("| `")]
    assert len(told) == len(rows), "a row tells of a field that there is not"


def test_all_messages_are_looked_at() -> None:
    messages = {*get_args(wire.ClientMessage), *get_args(wire.HubMessage)}
    assert messages < set(STRUCTS)
    assert of_json(int | None) == "integer or null"
    assert of_json(tuple[wire.Slice, ...]) == "list of `Slice`"


@pytest.mark.parametrize("error", CODES)
def test_every_code_is_explained(error: type[errors.TriptychError]) -> None:
    again = "yes" if error.retryable else "no"
    assert f"\n| `{error.code}` | {again} |" in SECTIONS["Error codes"]


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("prompt", f"{request.MAX_PROMPT:,}"),
        ("steps", f"1 to {request.MAX_STEPS}"),
        ("guidance_scale", f"0 to {request.MAX_GUIDANCE:g}"),
        ("n", f"1 to {request.MAX_IMAGES}"),
        ("clip_skip", f"0 to {request.MAX_CLIP_SKIP}"),
        ("schedule", "`tcd`"),
    ],
)
def test_limits_are_those_that_are_checked(field: str, limit: str) -> None:
    [told] = [line for line in section(wire.Submit).splitlines() if line.startswith(f"| `{field}` |")]
    assert limit in told


def test_the_number_and_the_sizes_are_told() -> None:
    text = "".join(SECTIONS.values())
    assert f"protocol {wire.PROTOCOL}" in SECTIONS["The version"]
    assert f"{wire.MAX_REQUEST_BYTES:,} bytes" in text
