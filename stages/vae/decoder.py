"""The VAE decoder: latents in, an encoded picture in the arena."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import BadOutput
from stages.core.model import ModelCard, read_card
from stages.core.wire import RunVae
from stages.runtime import Forward, Runtime
from stages.stage import OneByOne
from stages.vae.picture import encode


class VaeStage(OneByOne[RunVae]):
    """Decodes one picture at a time; the latents are bound where the U-Net left them."""

    _card: ModelCard

    @property
    def precision(self) -> str:
        """What the decoder computes in."""
        return next(iter(self._decoders.values()))[0].precision

    def load(self) -> None:
        """Compile for the first size and decode a grey picture."""
        self._card = read_card(Path(self.spec.model))
        self._runtime = Runtime(self.spec, self.beacon)
        self._decoders: dict[tuple[int, ...], tuple[Forward, NDArray[np.float32]]] = {}
        shape = self._card.latent_shape(*self.spec.sizes[0])
        decoder, _ = self._decoder(shape)
        decoder.allocate("latent_sample")
        decoder.infer()

    def work(self, run: RunVae) -> tuple[int, ...]:
        """Decode and encode; returns (bytes of the file,). Raises BadOutput for latents that are no picture."""
        decoder, sample = self._decoder(run.input_shape)
        latents = self.view.lend(run.input).view(np.float32).reshape(1, *run.input_shape)
        decoder.bind("latent_sample", latents)
        if not decoder.infer():
            raise BadOutput("the decoder's output holds NaN or Inf")
        pixels = np.clip(sample[0] / 2 + 0.5, 0, 1).transpose(1, 2, 0)
        picture = encode((pixels * 255).round().astype(np.uint8), run.format, run.metadata)
        self.view.write(run.output)[: len(picture)] = np.frombuffer(picture, np.uint8)
        self.view.seal(run.output, len(picture))
        return (len(picture),)

    def _decoder(self, shape: tuple[int, ...]) -> tuple[Forward, NDArray[np.float32]]:
        """The decoder for latents of `shape`, compiled on first use, and the array its output appears in."""
        if shape not in self._decoders:
            scale, shift = self._card.scaling_factor, self._card.shift_factor
            decoder = self._runtime.compile(
                "vae_decoder",
                {"latent_sample": (1, *shape)},
                # x / scaling_factor + shift_factor, within the graph
                normalise={"latent_sample": (-shift * scale, scale)},
            )
            self._decoders[shape] = (decoder, decoder.allocate("sample").view(np.float32))
        return self._decoders[shape]
