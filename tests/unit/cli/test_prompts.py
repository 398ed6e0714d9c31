import codecs
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.prompts import Lines, parse
from stages.core import wire
from stages.core.errors import BadRequest, ConfigError

DEFAULTS = wire.Submit(id="", prompt="", negative_prompt="blurry", steps=4, seed=1)
Taken = tuple[int, bytes]


def test_a_line_is_a_prompt_with_the_defaults_and_an_id_of_its_own() -> None:
    one, two = parse(b"  a cat \r", DEFAULTS), parse(b"a cat", DEFAULTS)
    assert one is not None
    assert two is not None
    assert (one.prompt, one.negative_prompt, one.steps, one.seed) == ("a cat", "blurry", 4, 1)
    assert one.id != two.id


def test_an_object_says_what_it_likes_and_leaves_the_rest() -> None:
    request = parse(b' {"id": "x", "prompt": "a dog", "steps": null, "n": 2, "output_format": "webp"}', DEFAULTS)
    assert request == wire.Submit(
        id="x", prompt="a dog", negative_prompt="blurry", steps=None, seed=1, n=2, output_format="webp"
    )


def test_an_object_needs_no_id() -> None:
    request = parse('{"prompt": "eine Katze im Schnee ❄"}'.encode(), DEFAULTS)
    assert request is not None
    assert request.id
    assert request.prompt == "eine Katze im Schnee ❄"


@pytest.mark.parametrize("line", [b"", b" ", b"\r", b"\t \r"])
def test_blank_lines_are_nothing(line: bytes) -> None:
    assert parse(line, DEFAULTS) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"prompt": "x"', "not JSON"),
        (b"{" * 100_000, "not JSON"),
        (b'{"prompt": "\xff"}', "not JSON"),
        (b'{"prompt": "x", "sedd": 3}', "unknown field `sedd`"),
        (b'{"prompt": 3}', "Expected `str`"),
        (b'{"negative_prompt": "x"}', "`prompt` is missing"),
        (b'{"type": "cancel", "id": "x"}', "not for 'cancel'"),
        (b'{"type": 7, "prompt": "x"}', "not for 7"),
        (b'{"prompt": "x", "n": 0}', "`n` must be from 1 to 10"),
        (b'{"prompt": "x", "n": 1' + b"0" * 40 + b"}", "`n` must be from 1 to 10"),
        (b'{"prompt": "x", "guidance_scale": 1e999}', ""),
        (b"a cat \xff", "not UTF-8"),
        (b"x" * (wire.MAX_REQUEST_BYTES + 1), "longer than"),
    ],
)
def test_what_is_no_request_is_a_bad_one(line: bytes, says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(line, DEFAULTS)
    assert says in caught.value.message
    assert len(caught.value.message) < 300


@given(st.binary(max_size=60).map(lambda rest: b"{" + rest) | st.binary(max_size=60))
def test_any_line_is_a_request_that_can_be_sent_or_a_bad_one(line: bytes) -> None:
    with suppress(BadRequest):
        request = parse(line, DEFAULTS)
        assert request is None or wire.decode_client_message(wire.encode(request)) == request


class Pipe(NamedTuple):
    lines: Lines
    write: Callable[[bytes], None]
    close: Callable[[], None]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ours, theirs = os.pipe()
    ends = [theirs]
    yield Pipe(Lines(ours, "the pipe"), lambda data: (os.write(theirs, data), None)[1], lambda: os.close(ends.pop()))
    for descriptor in (ours, *ends):
        os.close(descriptor)


def test_lines_come_as_they_are_written(pipe: Pipe) -> None:
    assert pipe.lines.take(0.0) is None
    pipe.write(b"one\ntw")
    assert pipe.lines.take(0.0) == (1, b"one")
    assert pipe.lines.take(0.0) is None
    pipe.write(b"o\n\nthree")
    assert pipe.lines.take(0.0) == (2, b"two")
    assert pipe.lines.take(0.0) == (3, b"")
    assert pipe.lines.take(0.0) is None
    assert not pipe.lines.ended
    pipe.close()
    assert pipe.lines.take(0.0) == (4, b"three")
    assert pipe.lines.ended
    assert pipe.lines.take(0.0) is None


def test_the_end_after_a_whole_line_makes_no_line(pipe: Pipe) -> None:
    pipe.write(b"one\n")
    pipe.close()
    assert pipe.lines.take(0.0) == (1, b"one")
    assert pipe.lines.take(0.0) is None
    assert pipe.lines.ended


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_bytes(b"x" * (5 * wire.MAX_REQUEST_BYTES) + b"\na cat\n")
    with path.open("rb") as file:
        lines = Lines(file.fileno(), "the file")
        taken = lines.take(0.0)
        assert taken is not None
        assert wire.MAX_REQUEST_BYTES < len(taken[1]) < wire.MAX_REQUEST_BYTES + (1 << 17)
        assert lines.take(0.0) == (2, b"a cat")


def test_a_byte_order_mark_is_no_part_of_the_first_line(pipe: Pipe) -> None:
    pipe.write(codecs.BOM_UTF8 + b'{"prompt": "a cat"}\n' + codecs.BOM_UTF8 + b"a dog\n")
    assert pipe.lines.take(0.0) == (1, b'{"prompt": "a cat"}')
    assert pipe.lines.take(0.0) == (2, codecs.BOM_UTF8 + b"a dog")


def test_an_empty_file_with_a_byte_order_mark_is_a_blank_line(pipe: Pipe) -> None:
    pipe.write(codecs.BOM_UTF8)
    pipe.close()
    assert pipe.lines.take(0.0) == (1, b"")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(ConfigError, match="the file cannot be read: Bad file descriptor; name a file of prompts"):
            Lines(descriptor, "the file").take(0.0)
    finally:
        os.close(descriptor)


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=9)), st.booleans())
def test_all_lines_are_taken_in_order_and_numbered(texts: list[str], newline: bool) -> None:
    whole = [text.encode() for text in texts]
    ours, theirs = os.pipe()
    try:
        os.write(theirs, b"\n".join(whole) + (b"\n" if newline and whole else b""))
        os.close(theirs)
        lines = Lines(ours, "the pipe")
        taken: list[Taken] = []
        while not lines.ended:
            if (line := lines.take(0.0)) is not None:
                taken.append(line)
    finally:
        os.close(ours)
    expected = whole if newline or not whole or whole[-1] else whole[:-1]
    assert taken == list(enumerate(expected, start=1))
