"""Every family's pictures by every program, each made once."""

from collections.abc import Mapping
from typing import Literal

from tests.parity import peers
from tests.parity.ask import asks
from tests.parity.export import Workshop
from tests.parity.families import FAMILIES
from tests.parity.ours import triptych
from tests.parity.peers import Pixels

Program = Literal["diffusers", "triptych", "optimum-intel", "openvino-genai"]
PEERS: tuple[Program, ...] = ("optimum-intel", "openvino-genai")
"""Programs that run the same IR."""


class Gallery:
    """The pictures, by label of their ask, made when they are first looked at."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._hung: dict[tuple[str, Program, str], Mapping[str, Pixels]] = {}

    def pictures(self, family: str, program: Program, precision: str = "f32") -> Mapping[str, Pixels]:
        """Without those that `program` does not make."""
        key = (family, program, precision)
        if key not in self._hung:
            self._hung[key] = self._make(*key)
        return self._hung[key]

    def _make(self, name: str, program: Program, precision: str) -> Mapping[str, Pixels]:
        family = FAMILIES[name]
        labelled = asks(family)
        if program == "diffusers":
            peer = peers.over_torch(self._workshop.torch_folder(family))
        else:
            folder = self._workshop.openvino_folder(family)
            if program == "triptych":
                return dict(zip(labelled, triptych(folder, precision, list(labelled.values())), strict=True))
            if program == "openvino-genai" and family.without_genai:
                return {}
            peer = (peers.genai if program == "openvino-genai" else peers.over_openvino)(folder, precision)
        made = {label: peer(ask) for label, ask in labelled.items()}
        return {label: picture for label, picture in made.items() if picture is not None}
