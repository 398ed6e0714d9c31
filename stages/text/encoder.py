"""The text stage: prompts in, prompt embeds in the arena."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import embeds
from stages.core.embeds import Floats
from stages.core.model import TOKENS, ModelCard, read_card
from stages.core.wire import RunText
from stages.runtime import Runtime
from stages.stage import OneByOne
from stages.text.clip import Clip


class TextStage(OneByOne[RunText]):
    """Encodes one window at a time into its place in the output slot (stages.core.embeds).

    A model with two encoders gets their embeds side by side, and the pooled embeds of the second one.
    """

    _card: ModelCard
    _clips: list[Clip]

    @property
    def precision(self) -> str:
        """What the encoders compute in."""
        return self._clips[0].precision

    def load(self) -> None:
        """Compile for one window of one prompt and encode the empty prompt."""
        self._card = read_card(Path(self.spec.model))
        runtime = Runtime(self.spec, self.beacon)
        self._clips = [Clip(runtime, self._card, part, self.spec.prompt_chunks) for part in self._card.text_encoders]
        assert sum(clip.dim for clip in self._clips) == self._card.embed_dim

    def work(self, run: RunText) -> tuple[int, ...]:
        """Encode all windows of all prompts of the job."""
        ids = [clip.tokenizer.encode(run.prompts) for clip in self._clips]
        rows, windows, _ = ids[0].shape
        shape = (rows, windows * TOKENS, self._card.embed_dim)
        tokens, pooled = embeds.lay(self.view.write(run.output), shape, self._card.pooled_dim)
        for row, prompt in enumerate(run.prompts):
            if self._card.zero_negative and not prompt and rows == 2 and row == 0:
                tokens[row], pooled[row] = 0, 0
                continue
            for window in range(windows):
                self._encode(tokens[row, window * TOKENS : (window + 1) * TOKENS], [i[row, window] for i in ids])
                if window == 0 and self._card.pooled_dim:
                    pooled[row] = self._clips[-1].pooled
        self.view.seal(run.output, embeds.nbytes(shape, self._card.pooled_dim))
        return shape

    def _encode(self, into: Floats, ids: list[NDArray[np.int64]]) -> None:
        """Fill `into` [77, dim], the encoders side by side."""
        first = 0
        for clip, window in zip(self._clips, ids, strict=True):
            clip.encode(window, into[:, first : first + clip.dim])
            first += clip.dim
