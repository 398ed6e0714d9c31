"""The VAE decoder: latents in, an encoded picture in the arena."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.checkpoint import Checkpoint
from stages.core.errors import BadOutput, StaleSlot
from stages.core.model import ModelCard, read_card
from stages.core.pipes import DrawPreview, PreviewDrawn, Run
from stages.core.tasks import Decode
from stages.runtime import Forward, Runtime
from stages.stage import OneByOne
from stages.vae.picture import encode
from stages.vae.preview import Previewer, practice_latents

log = logging.getLogger("stages")


class VaeStage(OneByOne[Decode]):
    """Decodes one picture at a time; the latents are bound where the U-Net left them."""

    _card: ModelCard

    @property
    def precision(self) -> str:
        """Inference precision of the decoder, as OpenVINO names it."""
        return next(iter(self._decoders.values()))[0].precision

    def load(self) -> None:
        """Compile for the first size, and decode something to learn the colours of previews from."""
        self._card = read_card(Path(self.spec.model))
        self._runtime = Runtime(self.spec, self.board)
        self._decoders: dict[tuple[int, ...], tuple[Forward, NDArray[np.float32]]] = {}
        self._previewer = Previewer(self._card.latent_channels)
        self._learns = True
        shape = self._card.latent_shape(*self.spec.sizes[0])
        decoder, sample = self._decoder(shape)
        latents = practice_latents(shape)
        decoder.allocate(decoder.inputs[0])[...] = self._card.to_decoder(latents)
        decoder.infer()
        self._learn(latents, sample[0])

    def work(self, run: Run[Decode]) -> tuple[int, ...]:
        """Decode and encode; returns (bytes of the file,). Raises BadOutput for latents that are no picture."""
        [given] = run.inputs
        decoder, sample = self._decoder(given.shape)
        latents = self.view.lend(given.slot).view(np.float32).reshape(1, *given.shape)
        decoder.bind(decoder.inputs[0], latents)
        if not decoder.infer():
            raise BadOutput("the decoder's output holds NaN or Inf")
        self._learn(self._card.from_decoder(latents[0]), sample[0])
        pixels = np.clip(sample[0] / 2 + 0.5, 0, 1).transpose(1, 2, 0)
        pixels = self.retouch((pixels * 255).round().astype(np.uint8))
        picture = encode(pixels, run.task.format, run.task.metadata)
        self.view.write(run.output)[: len(picture)] = np.frombuffer(picture, np.uint8)
        self.view.seal(run.output, len(picture))
        return (len(picture),)

    def retouch(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture, [height, width, 3], as it is to be encoded: for stages of one's own (examples/own_stage.py)."""
        return pixels

    def preview(self, wanted: DrawPreview) -> PreviewDrawn | None:
        """Draw from the newest checkpoint in the slot; nothing if the job has left it."""
        try:
            saved = Checkpoint(self.view.peek(wanted.slot), wanted.job, wanted.shape).restore()
        except StaleSlot:
            return None
        if saved is None or not np.isfinite(saved.latents).all():
            return None
        return PreviewDrawn(wanted.job, saved.step, self._previewer.draw(saved.latents, self._card.downscale))

    def _learn(self, latents: NDArray[np.float32], pixels: NDArray[np.float32]) -> None:
        """Let previews learn from a decoding; what they cannot learn from is a picture all the same."""
        try:
            self._previewer.learn(latents, pixels)
        except Exception as error:
            if self._learns:  # a line, not one a picture
                log.warning("previews cannot learn their colours here: %r", error)
            self._learns = False

    def _decoder(self, shape: tuple[int, ...]) -> tuple[Forward, NDArray[np.float32]]:
        """The decoder for latents of `shape`, compiled on first use, and the array its output appears in."""
        if shape not in self._decoders:
            [name] = self._runtime.ranks("vae_decoder")
            decoder = self._runtime.compile("vae_decoder", {name: (1, *shape)})
            self._decoders[shape] = (decoder, decoder.allocate(decoder.outputs[0]).view(np.float32))
        return self._decoders[shape]
