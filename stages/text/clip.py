"""One CLIP text encoder of a model folder, with its tokenizer."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.core.embeds import Floats
from stages.core.errors import BadOutput, BadRequest, ModelError
from stages.core.model import TOKENS, ModelCard
from stages.rewrites.clip_layers import stack_layers
from stages.runtime import Forward, Runtime
from stages.text.tokenizer import Tokenizer

_SHAPES = {"input_ids": (1, TOKENS)}


class _Stack(NamedTuple):
    """The encoder with the states of all layers as its output."""

    forward: Forward
    ids: NDArray[np.generic]
    states: Floats
    """Hidden states, [layers, 77, dim], the last layer first."""


class Clip:
    """A text encoder compiled for one chunk; `encode` writes to a place given to it, uncopied if contiguous."""

    def __init__(self, runtime: Runtime, card: ModelCard, part: str, max_chunks: int) -> None:
        self._runtime = runtime
        self._part = part
        tokenizer = card.path / part.replace("text_encoder", "tokenizer")
        self.tokenizer = Tokenizer(tokenizer, max_chunks, runtime.table_rows(part, "input_ids"))
        self._forward = runtime.compile(part, _SHAPES)
        self._states = _states(self._forward.outputs, part) if len(card.text_encoders) > 1 else None
        """Outputs that are fed to the U-Net, by `clip_skip`; None for a model of one encoder."""
        self._output = self._states[0] if self._states else "last_hidden_state"
        self._ids = self._forward.allocate("input_ids")
        self._own: Floats = self._forward.allocate(self._output).view(np.float32)
        self._pooled = self._forward.allocate("text_embeds") if "text_embeds" in self._forward.outputs else None
        self._skipping: dict[str, Floats] = {}
        """The arrays of the other outputs that were asked for."""
        self._stack: _Stack | None = None
        self.dim: int = self._own.shape[-1]
        self.precision = self._forward.precision
        self.encode(self.tokenizer.encode(("",)).ids[0, 0], self._own[0])

    @property
    def pooled(self) -> Floats:
        """The projected, pooled embeds [dim] of the last chunk encoded."""
        assert self._pooled is not None
        pooled: Floats = self._pooled.view(np.float32)[0]
        return pooled

    def encode(self, ids: NDArray[np.int64], into: Floats, clip_skip: int = 0) -> None:
        """Encode one chunk of token ids [77] into `into` [77, dim], without the last `clip_skip` layers.

        As diffusers does: of one encoder, what the last layer left in leaves, through the final layer norm; of two,
        what the layer before that leaves, as it is. Raises BadRequest if no layer is left, or none can be left out.
        """
        if clip_skip:
            into[...] = self._skip_of_two(ids, clip_skip) if self._states else self._skip_of_one(ids, clip_skip)
            return
        bound = into[np.newaxis] if into.flags.c_contiguous else self._own
        self._forward.bind(self._output, bound)
        _run(self._forward, self._ids, ids)
        if bound is self._own:
            into[...] = self._own[0]

    def _skip_of_two(self, ids: NDArray[np.int64], clip_skip: int) -> Floats:
        assert self._states is not None
        _check(clip_skip, len(self._states))
        name = self._states[clip_skip]
        if name not in self._skipping:
            self._skipping[name] = self._forward.allocate(name).view(np.float32)
        self._forward.bind(self._output, self._own)  # it is written as well, and may be bound to the last job's slot
        _run(self._forward, self._ids, ids)
        state: Floats = self._skipping[name][0]
        return state

    def _skip_of_one(self, ids: NDArray[np.int64], clip_skip: int) -> Floats:
        if self._stack is None:
            self._stack = self._compile_stack()
        _check(clip_skip, len(self._stack.states))
        _run(self._stack.forward, self._stack.ids, ids)
        state: Floats = self._stack.states[clip_skip]
        return state

    def _compile_stack(self) -> _Stack:
        """Compile once more, for all values of `clip_skip`: the plain encoder stays what it is, to the bit."""
        try:
            forward = self._runtime.compile(self._part, _SHAPES, rewrite=stack_layers)
        except ModelError as error:
            raise BadRequest(f"`clip_skip` cannot be served with this model: {error.message}") from error
        states = forward.allocate("last_hidden_state").view(np.float32)
        return _Stack(forward, forward.allocate("input_ids"), states)


def _run(forward: Forward, bound: NDArray[np.generic], ids: NDArray[np.int64]) -> None:
    bound[...] = ids
    if not forward.infer():
        raise BadOutput("the text encoder's output holds NaN or Inf")


def _check(clip_skip: int, layers: int) -> None:
    if clip_skip >= layers:
        raise BadRequest(f"`clip_skip` must be from 0 to {layers - 1} with this model, not {clip_skip}")


def _states(outputs: tuple[str, ...], part: str) -> list[str]:
    """The hidden states, from the one before the last layer's back to the first layer's."""
    # The last one may come twice: where it is the last hidden state, the compiled model gives both that one name.
    hidden = sorted({name for name in outputs if name.startswith("hidden_states.")}, key=lambda n: int(n.split(".")[1]))
    if len(hidden) < 3:
        raise ModelError(f"{part}: this export has no hidden states; export it again as a text-to-image pipeline")
    return hidden[-2:0:-1]
