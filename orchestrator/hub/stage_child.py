"""A stage as a child of the hub: `python -m stages SPEC`."""

import sys

import msgspec

from orchestrator.hub.child_spec import ChildSpec, Lifeline, Restart
from stages.core.config import Config, StageSpec


def stage_child(spec: StageSpec, config: Config, arena_fd: int, board_fd: int, address: str) -> ChildSpec:
    """The child that runs `spec`, which lacks only what is known when the pipeline starts.

    Its deaths in service have no limit: a prompt that kills stages is convicted by the router, and two such prompts
    must not end the service for everybody.
    """
    known = msgspec.structs.replace(spec, arena_fd=arena_fd, board_fd=board_fd, address=address)

    def argv(lifeline: Lifeline) -> list[str]:
        told = msgspec.structs.replace(known, lifeline_fd=lifeline.fd, parent=lifeline.parent)
        return [sys.executable, "-m", "stages", msgspec.json.encode(told).decode()]

    return ChildSpec(
        name=spec.name,
        argv=argv,
        pass_fds=(arena_fd, board_fd),
        essential=True,
        restart=Restart(attempts=config.load_attempts),
        load_s=config.deadlines.load_s,
        stop_s=config.deadlines.stop_s,
        stage=known,
    )
