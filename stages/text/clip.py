"""One CLIP text encoder of a model folder, with its tokenizer."""

import numpy as np
from numpy.typing import NDArray

from stages.core.embeds import Floats
from stages.core.errors import BadOutput, ModelError
from stages.core.model import TOKENS, ModelCard
from stages.runtime import Runtime
from stages.text.tokenizer import Tokenizer


class Clip:
    """Compiled for one window; `encode` writes where it is told to, without a copy if the place is contiguous."""

    def __init__(self, runtime: Runtime, card: ModelCard, part: str, max_windows: int) -> None:
        self.tokenizer = Tokenizer(card.path / part.replace("text_encoder", "tokenizer"), max_windows)
        self._forward = runtime.compile(part, {"input_ids": (1, TOKENS)})
        self._output = _embeds_output(self._forward.outputs, two=len(card.text_encoders) > 1, part=part)
        self._ids = self._forward.allocate("input_ids")
        self._own: Floats = self._forward.allocate(self._output).view(np.float32)
        self._pooled = self._forward.allocate("text_embeds") if "text_embeds" in self._forward.outputs else None
        self.dim: int = self._own.shape[-1]
        self.precision = self._forward.precision
        self.encode(self.tokenizer.encode(("",))[0, 0], self._own[0])

    @property
    def pooled(self) -> Floats:
        """The projected, pooled embeds [dim] of the last window encoded."""
        assert self._pooled is not None
        pooled: Floats = self._pooled.view(np.float32)[0]
        return pooled

    def encode(self, ids: NDArray[np.int64], into: Floats) -> None:
        """Encode one window of token ids [77] into `into` [77, dim]."""
        self._ids[...] = ids
        bound = into[np.newaxis] if into.flags.c_contiguous else self._own
        self._forward.bind(self._output, bound)
        if not self._forward.infer():
            raise BadOutput("the text encoder's output holds NaN or Inf")
        if bound is self._own:
            into[...] = self._own[0]


def _embeds_output(outputs: tuple[str, ...], two: bool, part: str) -> str:
    """The output that is fed to the U-Net: the last hidden state, or with two encoders the one before it."""
    if not two:
        return "last_hidden_state"
    hidden = sorted((name for name in outputs if name.startswith("hidden_states.")), key=lambda n: int(n.split(".")[1]))
    if len(hidden) < 2:
        raise ModelError(f"{part}: this export has no hidden states; export it again as a text-to-image pipeline")
    return hidden[-2]
