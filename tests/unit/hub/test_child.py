"""Real processes, started as the hub starts them."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from orchestrator.hub.child import Child
from orchestrator.hub.child_spec import ChildSpec, Lifeline
from orchestrator.hub.descriptors import in_use
from orchestrator.hub.stage_child import stage_child
from orchestrator.plan import plan
from stages.core.config import Config, StageSpec
from tests.conftest import DEADLINE_S
from tests.unit.cards import CARD, machine
from tests.unit.hub.child_specs import child_spec


@contextmanager
def running(spec: ChildSpec) -> Iterator[Child]:
    child = Child(spec)
    try:
        yield child
    finally:
        child.kill()
        child.reap()
        child.close()


def python(code: str) -> ChildSpec:
    """A child that runs `code`, its arguments being the numbers of its life-line."""
    return child_spec(
        argv=lambda lifeline: (sys.executable, "-I", "-c", code, str(lifeline.fd), str(lifeline.parent)), env={"A": "b"}
    )


def wait(descriptor: int) -> None:
    assert select.select([descriptor], [], [], DEADLINE_S)[0], "nothing came in time"


def stderr(child: Child) -> list[str]:
    """All lines it writes until it ends."""
    lines, more = [], True
    while more:
        wait(child.stderr.fileno())
        some, more = child.read_stderr()
        lines += some
    return lines


def test_a_child_knows_its_lifeline_and_its_parent_and_what_its_spec_says() -> None:
    code = (
        "import os, stat, sys\n"
        "print(stat.S_ISSOCK(os.fstat(int(sys.argv[1])).st_mode), int(sys.argv[2]) == os.getppid(), file=sys.stderr)\n"
        "print(os.environ['A'], os.environ['OPENBLAS_NUM_THREADS'], sys.stdin.read() == '', file=sys.stderr)\n"
        "print('nobody reads this')"
    )
    with running(python(code)) as child:
        assert stderr(child) == ["True True", "b 1 True"]
        wait(child.pidfd)
        assert child.reap() == "exited with status 0"
        assert not child.killed


def test_it_inherits_the_descriptors_of_its_spec_and_no_others(tmp_path: Path) -> None:
    with (tmp_path / "given").open("w+") as given, (tmp_path / "kept").open("w+") as kept:
        os.set_inheritable(kept.fileno(), True)
        code = (
            "import os, sys\n"
            "listed = os.listdir('/proc/self/fd')\n"  # and the descriptor by which they were, closed since
            "print(*sorted(int(fd) for fd in listed if os.path.exists('/proc/self/fd/' + fd))[3:], file=sys.stderr)"
        )
        seen = []

        def argv(lifeline: Lifeline) -> tuple[str, ...]:
            seen.append(lifeline)
            return (sys.executable, "-I", "-c", code)

        with running(child_spec(argv=argv, pass_fds=(given.fileno(),))) as child:
            assert stderr(child) == [" ".join(str(fd) for fd in sorted([given.fileno(), seen[0].fd]))]
            assert seen == [Lifeline(seen[0].fd, os.getpid())]


LIVES = (
    "import os, select, sys\n"
    "lifeline = int(sys.argv[1])\n"
    "os.write(lifeline, b'1')\n"
    "select.select([lifeline], [], [])\n"
    "print('leaving', file=sys.stderr)"
)


def test_it_says_that_it_has_loaded_and_leaves_when_it_is_hung_up_on() -> None:
    with running(python(LIVES)) as child:
        while not (said := child.read_lifeline())[0]:
            assert said == (False, True)
            wait(child.lifeline.fileno())
        assert said == (True, True)
        assert child.read_lifeline() == (False, True)
        child.hang_up()
        assert stderr(child) == ["leaving"]
        wait(child.pidfd)
        assert child.read_lifeline() == (False, False)  # readable for good: nobody must wait for it any more
        child.hang_up()  # there is no harm in being late


def test_it_leaves_when_we_are_gone() -> None:
    with running(python(LIVES)) as child:
        wait(child.lifeline.fileno())  # it has written there, and we die without having read it
        child.lifeline.close()
        assert stderr(child) == ["leaving"]


@pytest.mark.parametrize(("nice", "more"), [(0, 0), (5, 5), (100, 19)])
def test_its_nice_level_is_ours_and_more(nice: int, more: int) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with running(child_spec(argv=lambda lifeline: ("sleep", "60"), nice=nice)) as child:
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, own + more)


def test_nothing_is_left_of_one_that_cannot_be_started() -> None:
    before = in_use()
    with pytest.raises(FileNotFoundError):
        Child(child_spec(argv=lambda lifeline: ("/no/such/program",)))
    assert in_use() == before


def test_nothing_is_left_of_one_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(pid: int) -> int:
        raise OSError(24, "Too many open files")

    before = in_use()
    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        Child(child_spec(argv=lambda lifeline: ("sleep", "60")))
    assert in_use() == before
    with pytest.raises(ChildProcessError):  # no zombie, either
        os.waitpid(-1, os.WNOHANG)


def test_a_stage_is_told_all_that_it_needs() -> None:
    config = msgspec.structs.replace(Config(), load_attempts=5)
    unet = plan(config, CARD, machine(4)).stages[1]
    spec = stage_child(unet, config, 11, 12, "ipc://@stages")
    assert (spec.name, spec.essential, spec.pass_fds) == ("unet-0", True, (11, 12))
    assert (spec.load_s, spec.stop_s) == (config.deadlines.load_s, config.deadlines.stop_s)
    assert (spec.restart.attempts, spec.restart.intensity) == (5, None)
    python, *words, told = spec.argv(Lifeline(13, 99))
    assert (python, words) == (sys.executable, ["-m", "stages"])
    assert msgspec.json.decode(told, type=StageSpec) == msgspec.structs.replace(
        unet, arena_fd=11, board_fd=12, address="ipc://@stages", lifeline_fd=13, parent=99
    )
