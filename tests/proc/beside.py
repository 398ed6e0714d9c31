"""A child beside the stages, and `triptych serve` with it.

`python -m tests.proc.beside DIARY BACKOFF_S serve ...` is the server, and the same with the number of a life-line in
place of all that follows DIARY is the child: it writes a line to DIARY when it has loaded and one when it leaves, and
does nothing else.
"""

import os
import select
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.__main__ import main
from orchestrator.hub import hub
from orchestrator.hub.child_spec import ChildSpec, Intensity, Lifeline, Restart
from stages.core.config import Config


def beside(diary: str, backoff_s: float, address: str) -> Sequence[ChildSpec]:
    def argv(lifeline: Lifeline) -> Sequence[str]:
        return (sys.executable, "-m", "tests.proc.beside", diary, str(lifeline.fd))

    return [
        ChildSpec(
            name="diarist",
            argv=argv,
            env={"TOLD_ADDRESS": address},
            essential=False,
            restart=Restart(attempts=3, intensity=Intensity(deaths=2, window_s=600.0), backoff_s=backoff_s),
            load_s=60.0,
            stop_s=5.0,
        )
    ]


def live(diary: Path, lifeline: int) -> None:
    """The child: it serves from now on, until its life-line ends."""
    os.write(lifeline, b"1")
    note(diary, f"serves {os.getpid()} {os.environ['TOLD_ADDRESS']}")
    select.select([lifeline], [], [])
    note(diary, f"leaves {os.getpid()}")


def note(diary: Path, line: str) -> None:
    with diary.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    diary, number, *words = sys.argv[1:]
    if words:
        serve = hub.serve

        def serve_with_a_diarist(config: Config, **named: Any) -> int:
            return serve(config, **named | {"beside": partial(beside, diary, float(number))})

        hub.serve = serve_with_a_diarist
        sys.exit(main(words))
    live(Path(diary), int(number))
