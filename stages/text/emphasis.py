r"""Weights in prompts, as AUTOMATIC1111's web UI has them: the `a1111` syntax, and what weights do to embeds.

    (word)        1.1 times its weight             (word:1.3)    1.3 times
    [word]        1/1.1 times                      \( \) \[ \] \\  the character itself
    BREAK         the next word begins a chunk

Brackets nest and may cross each other, their factors multiply. One that is not closed reaches to the end; one that was
not opened is a character. A backslash before anything else is dropped.

Source: the web UI's wiki, Features, "Attention/emphasis"; and its behaviour, which differs from ours in one point:
there, BREAK inside brackets is drawn as a word.
"""

import re
from itertools import groupby
from typing import NamedTuple

import numpy as np

from stages.core.embeds import Floats
from stages.core.errors import BadRequest

STEP = 1.1
"""Factor of a bracket without a number: `(` multiplies by it, `[` divides."""

MAX_WEIGHT = 100.0

_SIGN = re.compile(
    r"\\(?P<literal>[()\[\]\\]?)"
    r"|:\s*(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*[)\]]"
    r"|[()\[\]|]"
    r"|\b(?:BREAK|AND)\b"
)


class Piece(NamedTuple):
    """Text of one weight."""

    text: str
    weight: float


def parse(prompt: str, negative: bool = False) -> list[list[Piece]]:
    """The pieces of a prompt, one list for each stretch between BREAKs; neighbours differ in weight.

    Raises BadRequest for weights out of bounds, and for what this syntax also has but is not served: editing
    `[from:to:when]`, alternation `[a|b]` and, but for a negative prompt, where it is a word, composition `a AND b`.
    """
    texts: list[str] = []
    stretches: list[int] = []
    """Number of the stretch that each text is in."""
    factors: list[tuple[int, int, float]] = []
    """Entries (first, end, factor): the weight of texts first to end - 1 is multiplied by factor."""
    opened: dict[str, list[int]] = {"(": [], "[": []}
    stretch = at = 0

    def close(bracket: str, factor: float) -> None:
        factors.append((opened[bracket].pop(), len(texts), factor))

    for sign in _SIGN.finditer(prompt):
        mark, text = sign[0], ""
        texts.append(prompt[at : sign.start()])
        stretches.append(stretch)
        at = sign.end()
        if mark[0] == "\\":
            text = sign["literal"]
        elif mark in opened:
            opened[mark].append(len(texts))
        elif mark[-1] == ")" and opened["("]:
            close("(", float(sign["number"] or STEP))
        elif mark == "]" and opened["["]:
            close("[", 1 / STEP)
        elif mark == "BREAK":
            stretch += 1
        elif mark == "AND" and not negative:
            raise BadRequest("in a1111 syntax `AND` composes prompts, which is not served; write `and`")
        elif (mark[-1] == "]" or mark == "|") and opened["["]:
            raise BadRequest(r"editing `[from:to:when]` and alternation `[a|b]` are not served; write \[ for a bracket")
        else:
            text = mark
        texts.append(text)
        stretches.append(stretch)
    texts.append(prompt[at:])
    stretches.append(stretch)
    for bracket, factor in (("(", STEP), ("[", 1 / STEP)):
        while opened[bracket]:
            close(bracket, factor)
    weights = _weights(len(texts), factors)
    pieces: list[list[Piece]] = [[] for _ in range(stretch + 1)]
    said = (entry for entry in zip(stretches, weights, texts, strict=True) if entry[2])
    for (number, weight), run in groupby(said, key=lambda entry: entry[:2]):
        pieces[number].append(Piece("".join(text for _, _, text in run), weight))
    return pieces


def _weights(count: int, factors: list[tuple[int, int, float]]) -> list[float]:
    weights = np.ones(count)
    with np.errstate(over="ignore", invalid="ignore"):
        for first, end, factor in factors:
            weights[first:end] *= factor
    if not (np.abs(weights) <= MAX_WEIGHT).all():  # NaN is not, either
        raise BadRequest(f"a weight in the prompt is beyond {MAX_WEIGHT:g}; are there too many brackets?")
    found: list[float] = weights.tolist()
    return found


def emphasise(embeds: Floats, weights: Floats) -> None:
    """Multiply the embeds [77, dim] of a chunk by the weights [77] of its tokens, in place, and keep their mean.

    The web UI's "Original" emphasis. Raises BadRequest where nothing is left to scale to the old mean.
    """
    if (weights == 1).all():
        return
    mean = embeds.mean(dtype=np.float64)
    weighted = embeds * weights[:, np.newaxis]
    with np.errstate(all="ignore"):
        weighted *= np.float32(mean / weighted.mean(dtype=np.float64))
    if not np.isfinite(weighted).all():
        raise BadRequest("the weights in the prompt leave nothing of it; choose others")
    embeds[...] = weighted
