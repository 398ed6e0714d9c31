"""A stage process: `python -m stages SPEC`, the spec as JSON. The orchestrator starts it; a person can, too."""

import ctypes
import os
import signal
import sys
import time
import traceback

import msgspec

from stages import loop
from stages.core import cores
from stages.core.arena import Layout, View
from stages.core.board import BoardWriter, Doing
from stages.core.config import StageSpec
from stages.core.errors import StartFailed, TriptychError
from stages.core.link import StageLink
from stages.core.pipes import Hello, Loaded, LoadFailed
from stages.core.region import Region
from stages.implementation import implementation

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read the spec, pin, import the one implementation, load it, serve."""
    spec = msgspec.json.decode(sys.argv[1], type=StageSpec)
    _die_with(spec.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the orchestrator's to handle
    # Before the implementation, and OpenVINO with it, is imported: it looks at the mask when it starts its threads.
    cores.pin(cores.parse(spec.cores))
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

    link = StageLink(spec.address, spec.lifeline_fd)
    link.send(Hello(spec.name, os.getpid()))
    board = BoardWriter(Region(spec.board_fd), spec.number)
    board.beat(Doing.LOADING)
    began = time.monotonic()
    try:
        stage = implementation(spec)(spec, View(spec.arena_fd, Layout(spec.pools), spec.number), board)
        stage.load()
        seen = cores.read_back(os.getpid())
        if seen != cores.parse(spec.cores):
            raise StartFailed(f"asked for cores {spec.cores}, but its threads may run on {cores.render(seen)}")
    except Exception as error:  # the process boundary: whatever it was becomes one line at the hub
        known = error if isinstance(error, TriptychError) else StartFailed(f"{type(error).__name__}: {error}")
        if known is not error:
            traceback.print_exc()
        link.send(LoadFailed(known.code, known.message))
        link.close()
        return known.exit_status
    board.loaded()
    threads = len(os.listdir("/proc/self/task"))
    link.send(Loaded(time.monotonic() - began, cores.render(seen), threads, stage.precision))
    loop.serve(stage, link)
    link.close()
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the orchestrator dies, even within a native call."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
