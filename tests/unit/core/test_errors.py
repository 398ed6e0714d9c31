import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import errors
from stages.core.errors import TriptychError, by_code
from stages.core.wire import Failed, decode_hub_message, encode

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, TriptychError)]


@pytest.mark.parametrize(
    ("code", "retryable", "exit_status"),
    [
        ("internal", False, 1),
        ("bad_request", False, 2),
        ("conflict", False, 2),
        ("not_found", False, 1),
        ("overloaded", True, 1),
        ("shutting_down", True, 1),
        ("cancelled", False, 1),
        ("stage_lost", False, 1),
        ("stage_fault", True, 1),
        ("bad_output", False, 1),
        ("stale_slot", True, 1),
        ("torn_slot", True, 1),
        ("bad_config", False, 2),
        ("bad_model", False, 2),
        ("start_failed", False, 3),
        ("no_answer", True, 3),
    ],
)
def test_a_code_that_programs_match_on_keeps_its_meaning(code: str, retryable: bool, exit_status: int) -> None:
    error = by_code(code)
    assert (error.code, error.retryable, error.exit_status) == (code, retryable, exit_status)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_code_of_its_own_and_says_who_recovers(kind: type[TriptychError]) -> None:
    assert by_code(kind.code) is kind
    assert kind.exit_status in (1, 2, 3)
    assert kind.__doc__


@pytest.mark.parametrize("code", ["", "of_a_later_version"])
def test_an_unknown_code_is_an_internal_error(code: str) -> None:
    assert by_code(code) is TriptychError


def test_an_exception_nobody_foresaw_is_one_line_that_asks_for_a_report() -> None:
    message = TriptychError.unforeseen(ValueError("what\nis this " + "x" * 10_000)).message
    assert message.startswith("ValueError: what is this")
    assert message.endswith("(please report it)")
    assert len(message) <= errors.MESSAGE_CHARS
    assert len(TriptychError("y" * 10_000).message) == errors.MESSAGE_CHARS


@given(st.text() | st.sampled_from(["a\nb", "a\r\n\tb", "a\u2028b", "a\x0bb\x85c", "\x1c"]))
def test_a_message_is_one_line(text: str) -> None:
    message = TriptychError(text).message
    assert len(message.splitlines()) <= 1
    assert message.split() == text.split()


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_crosses_the_wire(kind: type[TriptychError]) -> None:
    failed = decode_hub_message(encode(Failed.of("a", kind("it\nbroke"))))
    assert isinstance(failed, Failed)
    assert (failed.id, failed.message, failed.retryable) == ("a", "it broke", kind.retryable)
    assert type(failed.error()) is kind
    assert failed.error().message == "it broke"
