"""The step between the picture sizes that a model can make."""

from pathlib import Path


def size_step(unet: Path, blocks: int, downscale: int) -> int:
    """Pixels, each way, of which the size of any picture that the U-Net can make is a multiple.

    `unet` is its IR, `blocks` how many blocks it goes down in, `downscale` the pixels of a latent. Every block but the
    last halves the latents, rounding up, and is met on the way back by latents of twice the size of the next one: they
    are of the same size only where there was nothing to round. diffusers asks for the size of what they meet where it
    would not fit, but not while a model is being exported, so that the graph has a factor of two instead. Raises
    OSError if the IR cannot be read.
    """
    graph = unet.read_bytes()
    if b'type="Interpolate"' in graph and b'shape_calculation_mode="scales"' not in graph:
        return downscale  # exported otherwise, to sizes that are told: those of what they meet
    return downscale << max(0, blocks - 1)
