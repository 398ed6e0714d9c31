"""Captions as token ids."""

from collections.abc import Sequence

import torch
from transformers import CLIPTokenizer

from stages.core.model import TOKENS

_BATCH = 10_000


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids, i64 [n, TOKENS]."""
    parts = [
        tokenizer(
            list(captions[start : start + _BATCH]),
            padding="max_length",
            max_length=TOKENS,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for start in range(0, len(captions), _BATCH)
    ]
    return torch.cat(parts)
