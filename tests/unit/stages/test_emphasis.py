import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from stages.core.errors import BadRequest
from stages.text.emphasis import MAX_WEIGHT, STEP, emphasise, parse

Weighted = list[tuple[str, float]]

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\()[]|"), min_size=1).filter(
    lambda text: not re.search(r"\b(BREAK|AND)\b", text)
)
WEIGHTS = st.decimals("-3", "3", places=2).map(str)


def merged(pieces: Iterable[tuple[str, float]]) -> Weighted:
    """Weights rounded, neighbours of the same weight as one."""
    rounded = [(text, round(weight, 9)) for text, weight in pieces]
    return [("".join(text for text, _ in run), weight) for weight, run in groupby(rounded, key=lambda piece: piece[1])]


def one(prompt: str) -> Weighted:
    """The pieces of a prompt without BREAK."""
    [pieces] = parse(prompt)
    return merged(pieces)


def refusal(prompt: str) -> str:
    with pytest.raises(BadRequest) as refused:
        parse(prompt)
    return refused.value.message


# Brackets.


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", []),
        ("()", []),
        ("a cat", [("a cat", 1.0)]),
        ("a (black) cat", [("a ", 1.0), ("black", 1.1), (" cat", 1.0)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", 0.909090909)]),
        ("[[cat]]", [("cat", 0.826446281)]),
        ("[(cat)]", [("cat", 1.0)]),
        ("(cat:1.5)", [("cat", 1.5)]),
        ("(cat: 1.5 )", [("cat", 1.5)]),
        ("(cat:+.5)", [("cat", 0.5)]),
        ("(cat:2.)", [("cat", 2.0)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("(cat:0)", [("cat", 0.0)]),
        ("((a cat:2) in a tree:1.5)", [("a cat", 3.0), (" in a tree", 1.5)]),
        ("(a [small] cat:2)", [("a ", 2.0), ("small", 1.818181818), (" cat", 2.0)]),
        ("(black)(cat)", [("blackcat", 1.1)]),
        ("a() cat", [("a cat", 1.0)]),
        # Crossing: each pair counts for what is between its own two.
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 0.909090909)]),
        # Not closed: to the end. Not opened: a character.
        ("a (black cat", [("a ", 1.0), ("black cat", 1.1)]),
        ("a ((black) cat", [("a ", 1.0), ("black", 1.21), (" cat", 1.1)]),
        ("a [black cat", [("a ", 1.0), ("black cat", 0.909090909)]),
        ("a) cat]", [("a) cat]", 1.0)]),
        ("a cat:1.5)", [("a cat:1.5)", 1.0)]),
        ("a cat:1.5]", [("a cat:1.5]", 1.0)]),
        (")a cat(", [(")a cat", 1.0)]),
        # Colons that are no weight.
        ("ratio 16:9", [("ratio 16:9", 1.0)]),
        ("(ratio 16:9:1.5)", [("ratio 16:9", 1.5)]),
        ("(cat:1.2.3)", [("cat:1.2.3", 1.1)]),
        ("(cat:much)", [("cat:much", 1.1)]),
        ("(cat:)", [("cat:", 1.1)]),
        ("(cat:1.5 )dog", [("cat", 1.5), ("dog", 1.0)]),
        # Escapes.
        (r"a \(black\) cat", [("a (black) cat", 1.0)]),
        (r"\[a\] \\", [("[a] \\", 1.0)]),
        (r"(cat \(black\):1.5)", [("cat (black)", 1.5)]),
        (r"\\(cat)", [("\\", 1.0), ("cat", 1.1)]),
        (r"a\cat\ ", [("acat ", 1.0)]),
        ("cat\\", [("cat", 1.0)]),
        ("a | b", [("a | b", 1.0)]),
    ],
)
def test_brackets_are_read_as_weights(prompt: str, pieces: Weighted) -> None:
    assert one(prompt) == pieces


@given(PLAIN)
@example("a: b")
@example("BREAKS ANDY")
def test_text_without_brackets_survives(text: str) -> None:
    assert one(text) == [(text, 1.0)]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_with_everything_escaped_survives(text: str) -> None:
    assume(not re.search(r"\b(BREAK|AND)\b", text))
    assert one(re.sub(r"[\\()\[\]]", r"\\\g<0>", text)) == [(text, 1.0)]


@given(PLAIN, st.lists(WEIGHTS, max_size=4))
def test_weights_multiply(text: str, weights: list[str]) -> None:
    prompt, product = text, 1.0
    for weight in weights:
        prompt, product = f"({prompt}:{weight})", product * float(weight)
    assert one(f"x{prompt}") == merged([("x", 1.0), (text, product)])


@given(PLAIN, st.text("([", max_size=6))
def test_brackets_multiply_by_their_steps(text: str, opened: str) -> None:
    closed = opened[::-1].translate({ord("("): ")", ord("["): "]"})
    weight = STEP ** opened.count("(") / STEP ** opened.count("[")
    assume(not re.search(r":\s*[+-]?[0-9.]+\s*$", text))
    assert one(f"{opened}{text}{closed}") == [(text, round(weight, 9))]
    assert one(f"{opened}{text}") == [(text, round(weight, 9))]


@given(st.text("()[]\\:.|1aB REAKND", max_size=60))
def test_any_text_is_read_or_refused(prompt: str) -> None:
    with suppress(BadRequest):
        stretches = parse(prompt)
        pieces = [piece for stretch in stretches for piece in stretch]
        assert sum(piece.text.count("a") for piece in pieces) == prompt.count("a")
        assert all(piece.text for piece in pieces)
        assert all(one.weight != other.weight for stretch in stretches for one, other in pairwise(stretch))


# Chunks.


@pytest.mark.parametrize(
    ("prompt", "stretches"),
    [
        ("a BREAK b", [[("a ", 1.0)], [(" b", 1.0)]]),
        ("a BREAK BREAK b", [[("a ", 1.0)], [(" ", 1.0)], [(" b", 1.0)]]),
        ("BREAK", [[], []]),
        ("a BREAKER, break", [[("a BREAKER, break", 1.0)]]),
        ("a,BREAK,b", [[("a,", 1.0)], [(",b", 1.0)]]),
        ("(a BREAK b:2) c", [[("a ", 2.0)], [(" b", 2.0), (" c", 1.0)]]),
        ("(a)BREAK(b)", [[("a", 1.1)], [("b", 1.1)]]),
    ],
)
def test_break_begins_a_stretch(prompt: str, stretches: list[Weighted]) -> None:
    assert [[tuple(piece) for piece in pieces] for pieces in parse(prompt)] == stretches


# What is refused.


@pytest.mark.parametrize("prompt", ["[cat:dog:0.5]", "[dog:3]", "a [cat::.5]", "[cat|dog]", "([a|b]:1.5)"])
def test_editing_and_alternation_are_refused(prompt: str) -> None:
    assert "are not served" in refusal(prompt)


def test_composition_is_refused() -> None:
    assert "write `and`" in refusal("a cat AND a dog")
    assert one("cats and ANDROIDS") == [("cats and ANDROIDS", 1.0)]


def test_what_would_compose_is_a_word_in_a_negative_prompt() -> None:
    [pieces] = parse("a cat AND (a dog AND:1.5)", negative=True)
    assert merged(pieces) == [("a cat AND ", 1.0), ("a dog AND", 1.5)]


@pytest.mark.parametrize("prompt", ["(cat:101)", "(cat:-1000)", "(" * 50 + "cat", "(" * 16_000, f"(a:{'9' * 400})"])
def test_a_weight_out_of_bounds_is_refused(prompt: str) -> None:
    assert "beyond 100" in refusal(prompt)
    assert one(f"(cat:{MAX_WEIGHT:g})") == [("cat", MAX_WEIGHT)]


# What weights do.


def embeds(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.1, 1, (77, 8)).astype(np.float32)


def test_embeds_are_multiplied_and_their_mean_stays() -> None:
    weights = np.ones(77, np.float32)
    weights[2:5] = 1.5, 0.0, -2.0
    found, plain = embeds(), embeds()
    emphasise(found, weights)
    assert found.mean() == pytest.approx(plain.mean(), rel=1e-4)
    factor = found[0, 0] / plain[0, 0]
    assert np.allclose(found, plain * weights[:, None] * factor, rtol=1e-5)
    assert np.isclose(factor, plain.mean() / (plain * weights[:, None]).mean(), rtol=1e-4)


def test_weights_of_one_change_no_bit() -> None:
    found = embeds()
    emphasise(found, np.ones(77, np.float32))
    assert found.tobytes() == embeds().tobytes()


def test_a_part_of_a_wider_array_is_changed_in_place() -> None:
    wide, weights = np.hstack([embeds(0), embeds(1)]), np.linspace(0.5, 1.5, 77, dtype=np.float32)
    alone = embeds(1)
    emphasise(alone, weights)
    emphasise(wide[:, 8:], weights)
    assert wide[:, :8].tobytes() == embeds(0).tobytes()
    assert wide[:, 8:].tobytes() == alone.tobytes()


def test_weights_that_leave_nothing_are_refused() -> None:
    weights = np.ones(77, np.float32)
    weights[1::2] = -1
    weights[0] = 0
    with pytest.raises(BadRequest, match="leave nothing"):
        emphasise(np.ones((77, 8), np.float32), weights)
