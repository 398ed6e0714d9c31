"""The text stage: prompts in, prompt embeds in the arena."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import embeds
from stages.core.embeds import Floats
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.pipes import Run
from stages.core.tasks import EncodeText
from stages.runtime import Runtime
from stages.stage import OneByOne
from stages.text.cache import EmbedCache
from stages.text.clip import Clip
from stages.text.emphasis import emphasise
from stages.text.tokenizer import encode_alike


class TextStage(OneByOne[EncodeText]):
    """Encodes one chunk at a time into its place in the output slot (stages.core.embeds).

    A model with two encoders gets their embeds side by side, and the pooled embeds of the second one.
    """

    _card: ModelCard
    _clips: list[Clip]

    @property
    def precision(self) -> str:
        """Inference precision of the encoders, as OpenVINO names it."""
        return self._clips[0].precision

    def load(self) -> None:
        """Compile for one chunk of one prompt and encode the empty prompt."""
        self._card = read_card(Path(self.spec.model))
        runtime = Runtime(self.spec, self.board)
        self._clips = [Clip(runtime, self._card, part, self.spec.prompt_chunks) for part in self._card.text_encoders]
        self._cache = EmbedCache(self.spec.embed_cache_mb << 20)
        assert sum(clip.dim for clip in self._clips) == self._card.embed_dim

    def work(self, run: Run[EncodeText]) -> tuple[int, ...]:
        """Encode all chunks of all prompts of the job, or copy what they gave before."""
        task = run.task
        encoded = encode_alike([clip.tokenizer for clip in self._clips], task.prompts, task.syntax)
        rows, chunks, _ = encoded[0].ids.shape
        shape = (rows, chunks * TOKENS, self._card.embed_dim)
        tokens, pooled = embeds.lay(self.view.write(run.output), shape, self._card.pooled_dim)
        for row, prompt in enumerate(task.prompts):
            if self._card.zero_negative and not prompt and rows == 2 and row == 0:
                tokens[row], pooled[row] = 0, 0
                continue
            # diffusers lets the negative prompt go through all layers, A1111 skips the same ones for both.
            clip_skip = task.clip_skip if task.syntax == "a1111" or row == rows - 1 else 0
            parts = [(each.ids[row], each.weights[row]) for each in encoded]
            key = (clip_skip, *(array.tobytes() for part in parts for array in part))
            if (found := self._cache.find(key)) is not None:
                tokens[row], pooled[row] = found
                continue
            for chunk in range(chunks):
                into = tokens[row, chunk * TOKENS : (chunk + 1) * TOKENS]
                self._encode(into, [(ids[chunk], weights[chunk]) for ids, weights in parts], clip_skip)
                if chunk == 0 and self._card.pooled_dim:
                    pooled[row] = self._clips[-1].pooled
            self._cache.keep(key, tokens[row], pooled[row])
        self.board.cached(self._cache.lookups, self._cache.hits)
        self.view.seal(run.output, embeds.nbytes(shape, self._card.pooled_dim))
        return shape

    def _encode(self, into: Floats, chunk: list[tuple[NDArray[np.int64], Floats]], clip_skip: int) -> None:
        """Fill `into` [77, dim], the encoders side by side, from the ids and weights that each of them takes."""
        first = 0
        for clip, (ids, weights) in zip(self._clips, chunk, strict=True):
            part = into[:, first : first + clip.dim]
            clip.encode(ids, part, clip_skip)
            emphasise(part, weights)
            first += clip.dim
