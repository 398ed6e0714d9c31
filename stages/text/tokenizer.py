"""Prompts to token ids: CLIP's tokenizer by transformers, and windows for prompts longer than one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import CLIPTokenizer
from transformers.utils import logging

from stages.core.errors import BadRequest, ModelError
from stages.core.model import TOKENS

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns of prompts over 77 tokens, which are cut into windows here

_INNER = TOKENS - 2
"""Tokens of a window between the begin and the end mark."""


class Tokenizer:
    """The tokenizer of a model folder, from `tokenizer.json` or from `vocab.json` and `merges.txt`."""

    def __init__(self, folder: Path, max_windows: int) -> None:
        try:
            self._clip = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{folder}: no tokenizer can be read here: {error}") from error
        self._max_windows = max_windows

    def encode(self, prompts: tuple[str, ...]) -> NDArray[np.int64]:
        """Token ids [prompts, windows, 77], every prompt filled up to the windows of the longest.

        One window is what every CLIP pipeline feeds. A longer prompt is cut into windows of 75 tokens, each between
        marks of its own, nothing of it lost. Raises BadRequest beyond `max_windows`.
        """
        tokens = [self._clip(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        longest = max(len(ids) for ids in tokens)
        windows = max(1, -(-longest // _INNER))
        if windows > self._max_windows:
            raise BadRequest(
                f"`prompt` has {longest} tokens; {self._max_windows * _INNER} are encoded at most "
                "(shorten it, or raise model.prompt_chunks)"
            )
        return np.array([[self._window(ids, number) for number in range(windows)] for ids in tokens], np.int64)

    def _window(self, ids: list[int], number: int) -> list[int]:
        inner = ids[number * _INNER : (number + 1) * _INNER]
        marked = [self._clip.bos_token_id, *inner, self._clip.eos_token_id]
        return marked + [self._clip.pad_token_id] * (TOKENS - len(marked))
