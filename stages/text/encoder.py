"""The text encoder: prompts in, prompt embeds in the arena."""

from pathlib import Path

import numpy as np

from stages.core.model import TOKENS, read_card
from stages.core.wire import RunText
from stages.runtime import Forward, Runtime
from stages.stage import OneByOne
from stages.text.tokenizer import Tokenizer


class TextStage(OneByOne[RunText]):
    """Encodes one window at a time, straight into its place in the output slot: [rows, windows * 77, dim], float32."""

    _encode: Forward

    @property
    def precision(self) -> str:
        """What the encoder computes in."""
        return self._encode.precision

    def load(self) -> None:
        """Compile for one window of one prompt and encode the empty prompt."""
        folder = Path(self.spec.model)
        self._dim = read_card(folder).embed_dim
        self._tokenizer = Tokenizer(folder / "tokenizer", self.spec.prompt_chunks)
        runtime = Runtime(self.spec, self.beacon)
        self._encode = runtime.compile("text_encoder", {"input_ids": (1, TOKENS)})
        self._ids = self._encode.allocate("input_ids")
        self._encode.allocate("last_hidden_state")
        self._ids[...] = self._tokenizer.encode(("",))[0]
        self._encode.infer()

    def work(self, run: RunText) -> tuple[int, ...]:
        """Encode all windows of all prompts of the job."""
        ids = self._tokenizer.encode(run.prompts)
        rows, windows, _ = ids.shape
        shape = (rows, windows * TOKENS, self._dim)
        nbytes = int(np.prod(shape)) * 4
        embeds = self.view.write(run.output)[:nbytes].view(np.float32).reshape(rows, windows, 1, TOKENS, self._dim)
        for row in range(rows):
            for window in range(windows):
                self._ids[...] = ids[row, window]
                self._encode.bind("last_hidden_state", embeds[row, window])
                self._encode.infer()
        self.view.seal(run.output, nbytes)
        return shape
