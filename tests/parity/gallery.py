"""Every family's pictures by every program, each made once."""

from collections.abc import Mapping
from typing import Literal

from tests.parity import peers
from tests.parity.ask import WIDE, Ask, asks
from tests.parity.export import Workshop
from tests.parity.families import FAMILIES, Family
from tests.parity.ours import triptych
from tests.parity.peers import Pixels

Program = Literal["diffusers", "triptych", "optimum-intel", "openvino-genai"]
PEERS: tuple[Program, ...] = ("optimum-intel", "openvino-genai")
"""Programs that run the same IR."""


def asked(program: Program, family: Family) -> dict[str, Ask]:
    """The pictures that `program` makes of a family, by label."""
    labelled = asks(family)
    match program:
        case "triptych" | "diffusers":
            return labelled
        case "optimum-intel":  # the encoders that it exports for one-encoder families have no inner layers as outputs
            return {label: ask for label, ask in labelled.items() if not ask.clip_skip}
        case "openvino-genai":
            return {
                label: ask
                for label, ask in labelled.items()
                if ask.schedule in peers.GENAI_SCHEDULES
                and not (ask.clip_skip or ask.guidance_rescale or family.without_genai)
                and not (label == WIDE and family.genai_at_another_size)
            }


class Gallery:
    """The pictures, by label, made when they are first looked at."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._hung: dict[tuple[str, Program, str], Mapping[str, Pixels]] = {}

    def pictures(self, family: str, program: Program, precision: str = "f32") -> Mapping[str, Pixels]:
        """All that `program` makes of a family."""
        key = (family, program, precision)
        if key not in self._hung:
            self._hung[key] = self._make(FAMILIES[family], program, precision)
        return self._hung[key]

    def _make(self, family: Family, program: Program, precision: str) -> Mapping[str, Pixels]:
        labelled = asked(program, family)
        if not labelled:
            return {}
        match program:
            case "triptych":
                folder = self._workshop.openvino_folder(family)
                return dict(zip(labelled, triptych(folder, precision, list(labelled.values())), strict=True))
            case "diffusers":
                assert precision == "f32"
                peer = peers.over_torch(self._workshop.torch_folder(family))
            case "optimum-intel":
                peer = peers.over_openvino(self._workshop.openvino_folder(family), precision)
            case "openvino-genai":
                peer = peers.genai(self._workshop.openvino_folder(family), precision)
        return {label: peer(ask) for label, ask in labelled.items()}
