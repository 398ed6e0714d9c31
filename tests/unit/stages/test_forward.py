"""One forward around a request that breaks: what is counted as in flight must be in flight."""

from typing import TYPE_CHECKING, cast

import pytest

from stages.runtime import Forward

if TYPE_CHECKING:
    import openvino as ov

    from stages.core.board import BoardWriter


class FakeRequest:
    """As openvino.InferRequest; raises where it is told to."""

    def __init__(self, broken: str) -> None:
        self.broken = broken

    def start_async(self) -> None:
        if self.broken == "start":
            raise RuntimeError("it broke")

    def wait(self) -> None:
        if self.broken == "finish":
            raise RuntimeError("it broke")


class FakeModel:
    """As openvino.CompiledModel."""

    inputs = outputs = ()

    def __init__(self, broken: str) -> None:
        self.broken = broken

    def create_infer_request(self) -> FakeRequest:
        return FakeRequest(self.broken)

    def get_property(self, name: str) -> "FakeModel":
        return self

    def to_string(self) -> str:
        return "f32"


class FakeBoardWriter:
    """Counts forwards in flight."""

    def __init__(self) -> None:
        self.in_flight = 0

    def forward_started(self) -> None:
        self.in_flight += 1

    def forward_finished(self) -> None:
        self.in_flight -= 1


@pytest.mark.parametrize("broken", ["start", "finish", ""])
def test_a_forward_that_raises_is_not_in_flight(broken: str) -> None:
    board = FakeBoardWriter()
    forward = Forward(cast("ov.CompiledModel", FakeModel(broken)), cast("BoardWriter", board))
    if broken:
        with pytest.raises(RuntimeError, match="it broke"):
            forward.infer()
    else:
        forward.start()
        assert board.in_flight == 1
        assert forward.finish()
    assert board.in_flight == 0
