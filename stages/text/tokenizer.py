"""Prompts to token ids: CLIP's tokenizer by transformers, and chunks for prompts longer than one."""

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from transformers import CLIPTokenizerFast
from transformers.utils import logging

from stages.core.embeds import Floats
from stages.core.errors import BadRequest, ModelError
from stages.core.model import TOKENS
from stages.core.text_file import read_text_file, without_marks
from stages.core.wire import UNREADABLE, Syntax
from stages.text.emphasis import Piece, parse

logging.set_verbosity_error()  # it warns of prompts over 77 tokens, which are cut into chunks here

_INNER = TOKENS - 2
"""Tokens of a chunk between the begin and the end mark."""

_LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"))

_ELSEWHERE = (
    (re.compile(r"\bembedding:[\w-]+"), "textual-inversion embeddings"),
    (re.compile(r"<[\w-]+>"), "textual-inversion embeddings"),
    (re.compile(r"<\w+:[^<>]+>"), "LoRA and other extra networks"),
)
"""Patterns of what prompts of a1111 syntax name that is no text, each with its name in a message."""

_MARKS = {
    "bos_token": "`<|startoftext|>`, as a rule",
    "eos_token": "`<|endoftext|>`, as a rule",
    "pad_token": "`<|endoftext|>`, as a rule; `!` for SD 2 and the second tokenizer of SDXL",
}
"""The tokens that stand in every chunk, by their keys in tokenizer_config.json: what they are in most models."""

_END_OF_WORD = "</w>"
"""The ending of entries of CLIP's vocabulary that end a word: `!</w>` is the word, `!` only begins one."""

_Token = tuple[int, float]
"""Token id and weight."""

_Ids = Callable[[list[str]], list[list[int]]]
"""Token ids of every text, without marks."""


class Chunks(NamedTuple):
    """Prompts as the encoder takes them."""

    ids: NDArray[np.int64]
    """Token ids, [prompts, chunks, 77]."""
    weights: Floats
    """Factors of the embeds of each token, of the same shape as `ids`; 1 for the marks."""


class Tokenizer:
    """The tokenizer of a model folder, from `tokenizer.json` or from `vocab.json` and `merges.txt`."""

    def __init__(self, folder: Path, max_chunks: int, vocabulary: int | None) -> None:
        """`vocabulary`: how many tokens the text encoder has embeddings for; None if that is not known.

        Raises ModelError for a folder that is none of a tokenizer, or of one for another text encoder.
        """
        if not any(all((folder / file).is_file() for file in layout) for layout in _LAYOUTS):
            # transformers would make one without a vocabulary.
            raise ModelError(f"{folder}: neither tokenizer.json is here, nor vocab.json and merges.txt")
        try:
            # transformers 4 reads tokenizer.json by the fast one only; in transformers 5 both are the same.
            with without_marks(folder) as readable:
                self._clip = CLIPTokenizerFast.from_pretrained(str(readable), local_files_only=True)
        except Exception as error:  # tokenizers raises nothing more special
            _check_marks(folder, _nulls(folder))  # over which transformers may have stumbled
            raise ModelError(f"{folder}: no tokenizer can be read here: {error}") from error
        _check_marks(folder, [mark for mark in _MARKS if getattr(self._clip, f"{mark}_id") is None])
        _check_ids(folder, self._clip.get_vocab(), vocabulary)
        self._max_chunks = max_chunks
        self._ids: dict[Syntax, _Ids] = {"plain": self._plain, "a1111": _a1111(self._clip) or self._plain}

    def encode(self, prompts: tuple[str, ...], syntax: Syntax = "plain", at_least: int = 1) -> Chunks:
        """Every prompt (the negative ones first) as token ids and weights, all with as many chunks as the longest.

        One chunk is what every CLIP pipeline feeds. A longer prompt is cut into chunks of 75 tokens, each between
        marks of its own, padded as a short prompt is, and all that is encoded goes to the U-Net, middle marks
        included: as AUTOMATIC1111 does (without its search for a comma to cut at) and compel, and diffusers'
        community pipeline lpw_stable_diffusion where the padding is the end mark (its `no_boseos_middle=False`).
        There are `at_least` chunks. Raises BadRequest beyond `max_chunks`, and as stages.text.emphasis does.
        """
        *negative, positive = prompts
        rows = [self._negative(prompt, syntax) for prompt in negative] + [self._chunks(positive, syntax)]
        count = max(at_least, *(len(chunks) for chunks in rows))
        marked = [[self._mark(tokens) for tokens in chunks + [[]] * (count - len(chunks))] for chunks in rows]
        found = np.array(marked, [("id", np.int64), ("weight", np.float32)])
        return Chunks(found["id"].copy(), found["weight"].copy())

    def _chunks(self, prompt: str, syntax: Syntax, negative: bool = False) -> list[list[_Token]]:
        """The tokens of each chunk of one prompt, without marks."""
        if syntax == "plain":
            stretches = [[Piece(prompt, 1.0)]]
        else:
            self._check(prompt)
            stretches = parse(prompt, negative)
        chunks: list[list[_Token]] = []
        for pieces in stretches:
            tokens = self._tokens(pieces, syntax)
            chunks += [tokens[first : first + _INNER] for first in range(0, max(1, len(tokens)), _INNER)]
        if len(chunks) > 1 and not chunks[-1]:  # nothing came after the last BREAK
            chunks.pop()
        if len(chunks) > self._max_chunks:
            raise BadRequest(
                f"`prompt` fills {len(chunks)} chunks of {_INNER} tokens; {self._max_chunks} of them, "
                f"{self._max_chunks * _INNER} tokens, are encoded at most (shorten it, or raise model.prompt_chunks)"
            )
        return chunks

    def _negative(self, prompt: str, syntax: Syntax) -> list[list[_Token]]:
        try:
            return self._chunks(prompt, syntax, negative=True)
        except BadRequest as error:  # which of the two it is, the user has to be told
            what = error.message.removeprefix("`prompt`")
            raise BadRequest(f"`negative_prompt`{'' if what != error.message else ':'} {what.lstrip()}") from error

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Token ids as diffusers has them: a mark in the text is that mark; `!` is padding where that is its mark."""
        ids: list[list[int]] = self._clip(texts, add_special_tokens=False).input_ids
        return ids

    def _tokens(self, pieces: list[Piece], syntax: Syntax) -> list[_Token]:
        texts = [piece.text for piece in pieces]
        rows = self._ids[syntax](texts) if texts else []
        return [(id, piece.weight) for piece, ids in zip(pieces, rows, strict=True) for id in ids]

    def _mark(self, tokens: list[_Token]) -> list[_Token]:
        marked = [(self._clip.bos_token_id, 1.0), *tokens, (self._clip.eos_token_id, 1.0)]
        return marked + [(self._clip.pad_token_id, 1.0)] * (TOKENS - len(marked))

    def _check(self, prompt: str) -> None:
        known = self._clip.get_added_vocab()
        for form, what in _ELSEWHERE:
            for name in form.findall(prompt):
                if name not in known:
                    raise BadRequest(f"{what} are not served; leave `{name[:60]}` out")


def encode_alike(tokenizers: Sequence[Tokenizer], prompts: tuple[str, ...], syntax: Syntax) -> list[Chunks]:
    """The prompts by each tokenizer, all with as many chunks as any of them needs. Raises BadRequest, as they do."""
    encoded = [tokenizer.encode(prompts, syntax) for tokenizer in tokenizers]
    count = max(chunks.ids.shape[1] for chunks in encoded)
    return [
        chunks if chunks.ids.shape[1] == count else tokenizer.encode(prompts, syntax, count)
        for tokenizer, chunks in zip(tokenizers, encoded, strict=True)
    ]


def _a1111(clip: CLIPTokenizerFast) -> _Ids | None:
    """The token ids of texts in which a mark that is a word, too, is the word; None where no mark is.

    A1111 feeds the text encoders of SD 2, and the second one of SDXL, by OpenCLIP's tokenizer, to which the `!` that
    they are padded with is no mark.
    """
    vocabulary = clip.get_vocab()
    words = {mark for mark in clip.all_special_tokens if f"{mark}{_END_OF_WORD}" in vocabulary}
    if not words:
        return None
    graph = msgspec.json.decode(clip.backend_tokenizer.to_str())
    graph["added_tokens"] = [added for added in graph["added_tokens"] if added["content"] not in words]
    graph |= {"padding": None, "truncation": None}
    tokenizer = clip.backend_tokenizer.from_str(msgspec.json.encode(graph).decode())
    return lambda texts: [found.ids for found in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _nulls(folder: Path) -> list[str]:
    """The marks that tokenizer_config.json sets to null."""
    try:
        config = msgspec.json.decode(read_text_file(folder / "tokenizer_config.json"), type=dict[str, Any])
    except (OSError, *UNREADABLE):
        return []
    return [mark for mark in _MARKS if config.get(mark, "") is None]


def _check_marks(folder: Path, missing: list[str]) -> None:
    """Refuse a tokenizer without a mark: there would be nothing to feed in its place."""
    if missing:
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: `{missing[0]}` is null, but stands in every prompt; set it to the "
            f"token that the model was trained with ({_MARKS[missing[0]]})"
        )


def _check_ids(folder: Path, ids: dict[str, int], vocabulary: int | None) -> None:
    """Refuse a tokenizer of another text encoder: what is picked beyond the last embedding is not an embedding."""
    token, id = max(ids.items(), key=itemgetter(1))
    if vocabulary is not None and id >= vocabulary:
        raise ModelError(
            f"{folder}: the id of its token {token!r} is {id}, but the text encoder's embeddings end with that of "
            f"{vocabulary - 1}; take the tokenizer that the model was trained with, or export the model again"
        )
