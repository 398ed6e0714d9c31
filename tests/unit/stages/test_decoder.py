"""The decoder stage around a decoder that paints every latent's own pixels."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.core.arena import SlotRef
from stages.core.board import Board, BoardWriter
from stages.core.checkpoint import Checkpoint
from stages.core.pipes import DrawPreview, Input, PreviewDrawn, Run
from stages.core.tasks import Decode
from stages.vae import decoder
from stages.vae.decoder import VaeStage
from stages.vae.preview import Previewer
from tests.unit.cards import CARD
from tests.unit.fleet import Fleet

SHAPE = CARD.latent_shape(*CARD.native)
EMPTY = np.zeros((0, *SHAPE), np.float32)


class FakeForward:
    """As stages.runtime.Forward."""

    inputs = ("latent_sample",)
    outputs = ("sample",)
    precision = "f32"

    def __init__(self, shape: Sequence[int]) -> None:
        _, _, height, width = shape
        self.bound: dict[str, NDArray[np.generic]] = {
            "latent_sample": np.zeros(tuple(shape), np.float32),
            "sample": np.zeros((1, 3, height * CARD.downscale, width * CARD.downscale), np.float32),
        }

    def bind(self, name: str, array: NDArray[np.generic]) -> None:
        self.bound[name] = array

    def allocate(self, name: str) -> NDArray[np.generic]:
        return self.bound[name]

    def infer(self) -> bool:
        large = self.bound["latent_sample"][:, :3].repeat(CARD.downscale, axis=2).repeat(CARD.downscale, axis=3)
        self.bound["sample"][...] = large
        return True


class FakeRuntime:
    """As stages.runtime.Runtime."""

    def __init__(self, spec: object, board: object) -> None:
        pass

    def ranks(self, part: str) -> dict[str, int]:
        return {"latent_sample": 4}

    def compile(self, part: str, shapes: Mapping[str, Sequence[int]]) -> FakeForward:
        return FakeForward(shapes["latent_sample"])


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture
def stage(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[VaeStage]:
    monkeypatch.setattr(decoder, "Runtime", FakeRuntime)
    monkeypatch.setattr(decoder, "read_card", lambda folder: CARD)
    board = Board(3)
    made = VaeStage(fleet.plan.stages[2], fleet.processes["vae-0"].view, BoardWriter(board.region, 2))
    made.load()
    yield made
    board.close()


def latents(fleet: Fleet, job: int, value: float = 0.5) -> SlotRef:
    """A slot that the U-Net works on, with the checkpoint of step 3 in it."""
    slot = fleet.arena.reserve("latents", 1, job)
    payload = fleet.processes["unet-0"].view.write(slot)
    Checkpoint(payload, job, SHAPE).save(3, np.full(SHAPE, value, np.float32), EMPTY)
    return slot


def decoded(fleet: Fleet, stage: VaeStage) -> bool:
    """Whether a picture comes out."""
    slot = latents(fleet, 7)
    view = fleet.processes["unet-0"].view
    nbytes = Checkpoint(view.write(slot), 7, SHAPE).finish(np.full(SHAPE, 0.5, np.float32))
    view.seal(slot, nbytes)
    output = fleet.arena.reserve("image", 2, 7)
    [size] = stage.work(Run(7, Decode(), output, (Input(slot, SHAPE),)))
    return fleet.arena.read(output).tobytes().startswith(b"\x89PNG") and size > 0


def test_a_preview_is_of_the_newest_step(fleet: Fleet, stage: VaeStage) -> None:
    drawn = stage.preview(DrawPreview(5, latents(fleet, 5), SHAPE))
    assert isinstance(drawn, PreviewDrawn)
    assert (drawn.job, drawn.step, drawn.jpeg[:2]) == (5, 3, b"\xff\xd8")


def test_no_preview_is_drawn_of_what_is_not_there_or_is_no_number(fleet: Fleet, stage: VaeStage) -> None:
    slot = latents(fleet, 5)
    assert stage.preview(DrawPreview(6, slot, SHAPE)) is None, "the checkpoint is another job's"
    assert stage.preview(DrawPreview(8, latents(fleet, 8, np.nan), SHAPE)) is None
    fleet.arena.free(slot)
    assert stage.preview(DrawPreview(5, slot, SHAPE)) is None, "the slot has been freed"


def test_a_picture_that_previews_cannot_learn_from_is_made(
    fleet: Fleet, stage: VaeStage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def learn(*arguments: object) -> None:
        raise ValueError("of another shape")

    monkeypatch.setattr(Previewer, "learn", learn)
    stage.load()
    assert decoded(fleet, stage)
    assert [record.getMessage() for record in caplog.records if "another shape" in record.getMessage()] == [
        "previews cannot learn their colours here: ValueError('of another shape')"
    ]
