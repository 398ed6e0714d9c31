"""A stage of your own: the VAE stage that comes with Triptych, and a mark on every picture that it decodes.

    PYTHONPATH=examples triptych generate "a fox in the snow" --set stage.vae.implementation=own_stage:Watermark

In a configuration file it is `implementation = "own_stage:Watermark"` under the `[[stage]]` of kind "vae". The class
runs in the stage's own process: what it raises fails one prompt, and if it crashes, the process is started again.
For a stage that does something else altogether, derive from stages.stage.OneByOne.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stages.vae.decoder import VaeStage

TEXT = "triptych"
MARGIN = 4
"""Pixels between the mark and the edges of the picture."""


class Watermark(VaeStage):
    """Writes TEXT into the lower right corner, white on a dark outline."""

    def retouch(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw the mark onto [height, width, 3] pixels."""
        image = Image.fromarray(pixels)
        corner = (image.width - MARGIN, image.height - MARGIN)
        draw = ImageDraw.Draw(image)
        draw.text(corner, TEXT, "white", anchor="rs", font_size=image.height / 9, stroke_width=1, stroke_fill="black")
        return np.asarray(image)
