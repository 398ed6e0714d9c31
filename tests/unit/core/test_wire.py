import json
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import pipes, wire
from stages.core.errors import BadRequest

NUMBERS = st.integers(-(2**63), 2**64 - 1)
JSON_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    struct = get_origin(hint) or hint
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
        return st.builds(struct, **{field.name: values(field.type) for field in msgspec.structs.fields(hint)})
    if hint is int:
        return NUMBERS
    if hint is float:
        return JSON_NUMBERS
    arguments = get_args(hint)
    if getattr(hint, "__origin__", None) is tuple:
        if arguments[-1] is not Ellipsis:
            return st.tuples(*map(values, arguments))
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if arguments and all(isinstance(argument, type) for argument in arguments) and not hasattr(hint, "__origin__"):
        return st.one_of(*map(values, arguments))
    return st.from_type(hint)


def kinds(union: Any) -> list[type[Any]]:
    """The messages of a union, unions in it resolved."""
    if get_origin(union) not in (Union, UnionType):
        return [union]
    return [kind for part in get_args(union) for kind in kinds(part)]


@pytest.mark.parametrize("kind", kinds(wire.ClientMessage))
def test_what_a_client_says_is_heard(kind: type[Any]) -> None:
    @given(values(kind))
    def check(message: Any) -> None:
        assert wire.decode_client_message(wire.encode(message)) == message

    check()


@pytest.mark.parametrize("kind", kinds(wire.HubMessage))
def test_what_the_hub_answers_is_heard(kind: type[Any]) -> None:
    @given(values(kind))
    def check(message: Any) -> None:
        assert wire.decode_hub_message(wire.encode(message)) == message

    check()


@pytest.mark.parametrize("kind", kinds(pipes.ToStage))
def test_what_the_hub_tells_a_stage_is_heard(kind: type[Any]) -> None:
    @given(values(kind))
    def check(message: Any) -> None:
        assert pipes.unpack_to_stage(pipes.pack_to_stage(message)) == message

    check()


@pytest.mark.parametrize("kind", kinds(pipes.FromStage))
def test_what_a_stage_reports_is_heard(kind: type[Any]) -> None:
    @given(values(kind))
    def check(message: Any) -> None:
        assert pipes.unpack_from_stage(pipes.pack_from_stage([message, message])) == [message, message]

    check()


def test_clients_write_plain_json_with_defaults_left_out() -> None:
    frame = b'{"type": "submit", "id": "a", "prompt": "a cat", "guidance_scale": 4}'
    assert wire.decode_client_message(frame) == wire.Submit(id="a", prompt="a cat", guidance_scale=4.0)
    assert wire.decode_client_message(b'{"type": "status"}') == wire.StatusRequest()
    assert json.loads(wire.encode(wire.Done(id="a"))) == {"type": "done", "id": "a"}


def submit(**fields: str) -> bytes:
    """A submit whose fields are given as JSON text."""
    given_fields = {"type": '"submit"', "id": '"a"', "prompt": '"p"'} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in given_fields.items()) + "}").encode("utf-8")


MANY_KEYS = "{" + ",".join(f'"{number}":0' for number in range(100_000)) + "}"
DEEP = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"a":' * 100_000 + "0" + "}" * 100_000
BROKEN = {
    "nothing": b"",
    "garbage": b"\x00\xff\xfe",
    "text": b"hello",
    "null": b"null",
    "a list": b"[]",
    "two objects": submit() + submit(),
    "half an object": submit()[:-1],
    "pickle": pickle.dumps({"type": "submit", "id": "a", "prompt": "p"}),
    "msgpack": pipes.pack_to_stage(pipes.Stop()),
    "a message of the hub": wire.encode(wire.Done(id="a")),
    "no type": b'{"id": "a"}',
    "a number for a type": b'{"type": 3}',
    "no prompt": b'{"type": "submit", "id": "a"}',
    "unknown field": submit(fd="3"),
    "prompt is no string": submit(prompt="3"),
    "prompt is null": submit(prompt="null"),
    "lone surrogate, escaped": submit(prompt=r'"\ud800"'),
    "lone surrogate, raw": submit().replace(b'"p"', b'"\xed\xa0\x80"'),
    "lone surrogate for an id": submit(id=r'"\udfff"'),
    "NaN": submit(guidance_scale="NaN"),
    "Infinity": submit(guidance_scale="-Infinity"),
    "beyond floats": submit(guidance_scale="1e999"),
    "text for a number": submit(steps='"20"'),
    "fraction for a number": submit(seed="1.5"),
    "true for a number": submit(n="true"),
    "endless number": submit(seed="9" * 100_000),
    "unknown format": submit(output_format='"gif"'),
    "deep": DEEP.encode(),
    "deep object": DEEP_OBJECT.encode(),
    "deep seed": submit(seed=DEEP),
    "deep before the type": b'{"x":' + DEEP.encode() + b',"type":"submit"}',
    "many keys": MANY_KEYS.encode(),
    "many keys in a submit": submit(seed=MANY_KEYS),
    "unknown keys in number": submit(**{f"k{number}": "0" for number in range(80_000)}),
    "too long": submit(prompt='"' + "p" * (1 << 20) + '"'),
    "far too long": b"\x00" * (1 << 26),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_request_is_refused_in_one_line_and_at_once(what: str) -> None:
    frame, cpu_s = BROKEN[what], []
    for _ in range(3):  # the quickest of three: this machine does other things besides
        began = time.thread_time()
        with pytest.raises(BadRequest) as refused:
            wire.decode_client_message(frame)
        wire.id_of_broken(frame)
        cpu_s.append(time.thread_time() - began)
        assert len(refused.value.message.splitlines()) == 1
    assert min(cpu_s) < 0.1


@pytest.mark.parametrize("what", [what for what in BROKEN if "surrogate" in what] + ["lone surrogate and more behind"])
def test_a_lone_surrogate_is_named(what: str) -> None:
    broken = BROKEN | {"lone surrogate and more behind": submit(prompt=r'"\ud800 in the snow, at sunset"')}
    with pytest.raises(BadRequest, match="not a request: its text is not valid Unicode"):
        wire.decode_client_message(broken[what])


def test_a_pair_of_surrogates_is_a_character() -> None:
    message = wire.decode_client_message(submit(prompt=r'"a \ud83e\udd8a in the snow"'))
    assert message == wire.Submit(id="a", prompt="a \U0001f98a in the snow")


def test_a_refusal_does_not_repeat_an_endless_request() -> None:
    with pytest.raises(BadRequest) as refused:
        wire.decode_client_message(b'{"type":"' + b"a" * 1_000_000 + b'"}')
    assert len(refused.value.message) < 400


def decodes_or_refuses(frame: bytes) -> None:
    try:
        message = wire.decode_client_message(frame)
    except BadRequest:
        name = wire.id_of_broken(frame)
        assert len(name.encode()) <= 4 * 128
    else:
        assert isinstance(message, wire.ClientMessage)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(frame: bytes) -> None:
    decodes_or_refuses(frame)


@pytest.mark.parametrize("decode", [pipes.unpack_from_stage, pipes.unpack_to_stage, wire.decode_hub_message])
def test_any_bytes_are_a_message_or_unreadable(decode: Callable[[bytes], object]) -> None:
    @given(st.binary(max_size=200))
    def check(frame: bytes) -> None:
        with suppress(*wire.UNREADABLE):
            decode(frame)

    check()


@given(values(wire.Submit), st.data())
def test_a_damaged_request_is_a_request_or_refused(message: wire.Submit, data: st.DataObject) -> None:
    frame = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(frame))


FIELDS = st.sampled_from([field.name for field in msgspec.structs.fields(wire.Submit)]) | st.text()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["submit", "cancel", "status", "trace", "x"]), st.dictionaries(FIELDS, ANY_JSON))
def test_any_json_is_a_request_or_refused(kind: str, fields: dict[str, Any]) -> None:
    decodes_or_refuses(json.dumps({"type": kind, "id": "a", "prompt": "p"} | fields).encode())


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b'{"id": "a1", "prompt": 3}', "a1"),
        (b'{"id": "a1", "guidance_scale": NaN}', "a1"),
        (json.dumps({"id": "é" * 128}).encode(), "é" * 128),
        (json.dumps({"id": "é" * 129}).encode(), ""),
        (b'{"id": ""}', ""),
        (b'{"id": 3}', ""),
        (b'{"id": "a\\nb"}', ""),
        (b'{"id": "\\ud800"}', ""),
        (b'{"id": "a\\u0000"}', ""),
        (b'["id"]', ""),
        (b'"id"', ""),
        (b'{"id": "a1"', ""),
        (b"\xff", ""),
        (b"", ""),
        (DEEP.encode(), ""),
        (DEEP_OBJECT.encode(), ""),
        (b'{"id": ' + b"9" * 10_000 + b"}", ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_refusal_can_be_addressed_where_an_id_can_be_made_out(frame: bytes, expected: str) -> None:
    assert wire.id_of_broken(frame) == expected
