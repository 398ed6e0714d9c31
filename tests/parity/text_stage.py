"""The text stage in this process, in float32: what it lays into its slot for the U-Net."""

from pathlib import Path

from orchestrator.plan import Machine, plan
from stages.core import embeds
from stages.core.arena import Arena, Layout, View
from stages.core.board import Board, BoardWriter
from stages.core.config import Config, ModelConfig
from stages.core.embeds import Embeds
from stages.core.model import read_card
from stages.core.pipes import Run
from stages.core.tasks import EncodeText
from stages.core.wire import Syntax
from stages.text.encoder import TextStage


class Encoder:
    """A loaded text stage and an arena of its own."""

    def __init__(self, folder: Path) -> None:
        self._card = read_card(folder)
        config = ModelConfig(precision="f32", embed_cache_mb=0)  # else what is asked for again would not be made again
        decided = plan(Config(model=config), self._card, Machine.here())
        spec = next(spec for spec in decided.stages if spec.kind == "text")
        layout = Layout(decided.pools)
        self._arena = Arena(layout)
        self._stage = TextStage(
            spec, View(self._arena.region.fd, layout, spec.number), BoardWriter(Board(len(decided.stages)).region, 0)
        )
        self._stage.load()
        self._owner = spec.number

    def encode(self, *prompts: str, syntax: Syntax = "plain", clip_skip: int = 0) -> Embeds:
        """The embeds of `prompts`, the negative one first."""
        slot = self._arena.reserve("embeds", self._owner, 1)
        try:
            *negative, prompt = prompts
            task = EncodeText(prompt, "".join(negative), guided=bool(negative), syntax=syntax, clip_skip=clip_skip)
            shape = self._stage.work(Run(1, task, slot))
            tokens, pooled = embeds.lay(self._arena.read(slot), shape, self._card.pooled_dim)
            return Embeds(tokens.copy(), pooled.copy())
        finally:
            self._arena.free(slot)
