"""The tasks of stages, each a frozen struct: what is asked for, but for the slots that are read and written.

A field of a request that a stage is to know of stands here, and nowhere else between the request and that stage.
"""

from typing import ClassVar, Literal

import msgspec

from stages.core.wire import Format, Syntax

TaskName = Literal["encode_text", "denoise", "decode"]


class _Task(msgspec.Struct, frozen=True, array_like=True):
    """Base of all tasks."""

    name: ClassVar[TaskName]


class EncodeText(_Task, frozen=True, tag="encode_text"):
    """Encode the prompts of one image, the negative one first where the image is guided."""

    name: ClassVar[TaskName] = "encode_text"
    prompt: str
    negative_prompt: str = ""
    guided: bool = False
    """Whether there are two rows, with and without the prompt (classifier-free guidance)."""
    syntax: Syntax = "plain"
    clip_skip: int = 0
    """Last layers of the text encoders that the prompt does not go through."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts to encode, one a row of the prompt embeds."""
        return (self.negative_prompt, self.prompt) if self.guided else (self.prompt,)


class Denoise(_Task, frozen=True, kw_only=True, tag="denoise"):
    """Denoise the noise of `seed`, or what the checkpoint in the output slot holds, guided by prompt embeds."""

    name: ClassVar[TaskName] = "denoise"
    width: int
    """Pixels of the picture."""
    height: int
    steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    """How far the guided output's contrast is pulled back to the unguided one's, 0 to 1."""
    schedule: str | None = None
    """None is the model's own."""
    seed: int

    @property
    def pixels(self) -> int:
        """Pixels of the picture, in all."""
        return self.width * self.height


class Decode(_Task, frozen=True, tag="decode"):
    """Decode latents and encode the picture as a file of `format`, with `metadata` inside."""

    name: ClassVar[TaskName] = "decode"
    format: Format = "png"
    metadata: dict[str, str] = {}


Task = EncodeText | Denoise | Decode
