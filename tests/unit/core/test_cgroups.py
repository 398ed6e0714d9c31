"""Limits of the control groups that a process is in: on trees of files like the kernel's, and on the kernel's own."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from stages.core import cgroups, cores
from stages.core.region import available_memory
from tests.conftest import DEADLINE_S, ROOT

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = """\
29 23 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755
31 29 0:28 / /sys/fs/cgroup/cpuset rw shared:6 - cgroup cgroup rw,cpuset
32 29 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
33 29 0:30 / /sys/fs/cgroup/memory rw shared:8 - cgroup cgroup rw,memory"""
HYBRID = V1 + "\n34 29 0:31 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw"
IN_V1 = "5:memory:{0}\n4:cpu,cpuacct:{0}\n3:cpuset:/other\n1:name=systemd:/"
UNLIMITED = 9223372036854771712
"""What version 1 says where memory has no limit."""


def machine(at: Path, own: str, mounts: str, files: Mapping[str, str]) -> Path:
    """A root with these lines in /proc/self/cgroup and mountinfo, and files under /sys/fs/cgroup; 8 MiB available."""
    told = {"proc/self/cgroup": own, "proc/self/mountinfo": mounts, "proc/meminfo": "MemAvailable:    8192 kB"}
    for path, text in told.items() | {(f"sys/fs/cgroup/{path}", text) for path, text in files.items()}:
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).write_text(f"{text}\n")
    return at


def cpu(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    """The files of version 1."""
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


def memory(folder: str, limit: int, used: int, cache: int = 0) -> dict[str, str]:
    """The files of version 1; the group itself has other figures than it has with all groups within."""
    stat = f"inactive_file 0\nactive_file 0\ntotal_inactive_file 1\ntotal_active_file {cache}"
    told = {"limit_in_bytes": str(limit), "usage_in_bytes": str(used), "stat": stat}
    return {f"{folder}/memory.{name}": text for name, text in told.items()}


@pytest.mark.parametrize(
    ("own", "mounts", "files", "expected"),
    [
        pytest.param("0::/", V2, {}, math.inf, id="none"),
        pytest.param("0::/a", V2, {"a/cpu.max": "150000 100000"}, 1.5, id="own"),
        pytest.param("0::/a", V2, {"a/cpu.max": "max 100000"}, math.inf, id="no limit"),
        pytest.param("0::/a/b", V2, {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5, id="outer"),
        pytest.param("0::/a/b", V2, {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 50000"}, 3.0, id="smaller"),
        pytest.param("0::/a/b", V2, {"a/cpu.max": "400000 100000", "a/b/cpu.max": "100000 50000"}, 2.0, id="inner"),
        pytest.param("0::/", V2, {"cpu.max": "250000 100000"}, 2.5, id="root of a container"),
        pytest.param("0::/a", V2, {"b/cpu.max": "1 100000", "a/c/cpu.max": "1 100000"}, math.inf, id="of others"),
        pytest.param("0::/a", V2, {"a/cpu.max": "x y"}, math.inf, id="unreadable"),
        pytest.param("0::/a", V2, {"a/cpu.max": ""}, math.inf, id="empty"),
        pytest.param("0::/a", V2, {"a/cpu.max": "1 0"}, math.inf, id="no period"),
        pytest.param(
            "0::/../../x", V2, {"cpu.max": "250000 100000", "../../x/cpu.max": "1 1"}, 2.5, id="another namespace"
        ),
        pytest.param(
            "0::/pods/x/y",
            V2.replace(" / ", " /pods/x ", 1),
            {"y/cpu.max": "50000 100000", "cpu.max": "max 100000"},
            0.5,
            id="mount with a root of its own",
        ),
        pytest.param(
            "0::/a",
            V2.replace(" / ", " /of/others ", 1) + "\n" + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040own"),
            {"cpu.max": "1 100000", "my own/a/cpu.max": "50000 100000"},
            0.5,
            id="second mount, with a space",
        ),
        pytest.param(IN_V1.format("/a"), V1, cpu("cpu,cpuacct/a", 150_000), 1.5, id="1: own"),
        pytest.param(IN_V1.format("/a"), V1, cpu("cpu,cpuacct/a", -1), math.inf, id="1: no limit"),
        pytest.param(
            IN_V1.format("/a/b"),
            V1,
            cpu("cpu,cpuacct", -1) | cpu("cpu,cpuacct/a", 50_000) | cpu("cpu,cpuacct/a/b", -1),
            0.5,
            id="1: outer",
        ),
        pytest.param(
            IN_V1.format("/docker/x"), V1.replace(" / ", " /docker/x "), cpu("cpu,cpuacct", 70_000), 0.7, id="1: docker"
        ),
        pytest.param(IN_V1.format("/a") + "\n0::/", HYBRID, cpu("cpu,cpuacct/a", 50_000, 25_000), 2.0, id="1 beside 2"),
        pytest.param(
            "1:name=systemd:/\n0::/a",
            HYBRID,
            {"unified/a/cpu.max": "50000 100000"} | cpu("cpu,cpuacct/a", 1),
            0.5,
            id="2 beside 1",
        ),
    ],
)
def test_the_quota_is_the_smallest_of_all_groups_around(
    own: str, mounts: str, files: Mapping[str, str], expected: float, tmp_path: Path
) -> None:
    assert cores.quota(machine(tmp_path, own, mounts, files)) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("/", {}, 8 << 20),
        ("/", memory("memory", UNLIMITED, 5000), 8 << 20),
        ("/a", memory("memory", UNLIMITED, 5000) | memory("memory/a", 4000, 3000, 999), 2000),
        ("/a/b", memory("memory/a", 4000, 3000) | memory("memory/a/b", UNLIMITED, 3000), 1001),
        ("/a", memory("memory/b", 1, 0), 8 << 20),
        ("/a", memory("memory/a", 4000, 9000), 0),
    ],
)
def test_memory_limits_of_version_1_are_seen_too(
    own: str, files: Mapping[str, str], expected: int, tmp_path: Path
) -> None:
    assert available_memory(machine(tmp_path, IN_V1.format(own), V1, files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.quota(tmp_path) == math.inf


class Made:
    """A group made in the hierarchy of a controller, with another one within, which is where a program is run."""

    def __init__(self, controller: str, limits: Mapping[str, str]) -> None:
        """`limits` by file names of version 2 or 1. Raises OSError where none can be made."""
        self.outer = cgroups.around(controller)[-1] / f"triptych-test-{os.getpid()}"
        self.inner = self.outer / "inner"
        written = False
        try:
            self.inner.mkdir(parents=True)
            for name, limit in limits.items():
                with suppress(OSError):
                    (self.outer / name).write_text(limit)
                    written = True
        finally:
            if not written:
                self.remove()
        if not written:
            raise OSError(f"no limit of {controller} can be set")

    def run(self, expression: str) -> str:
        """What a process in the inner group prints for an expression."""
        program = f"""
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
from stages.core import cores, region
print({expression})
"""
        command = [sys.executable, "-c", program, str(self.inner / "cgroup.procs")]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True
        ).stdout.strip()

    def remove(self) -> None:
        for folder in (self.inner, self.outer):
            with suppress(OSError):
                folder.rmdir()


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    try:
        group = Made(*request.param)
    except (OSError, IndexError) as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.remove()


@pytest.mark.parametrize("made", [("cpu", {"cpu.max": "150000 100000", "cpu.cfs_quota_us": "150000"})], indirect=True)
def test_the_kernel_s_own_quota_is_seen_from_a_group_within(made: Made) -> None:
    assert made.run("cores.quota()") == "1.5"


@pytest.mark.parametrize(
    "made", [("memory", {"memory.max": str(1 << 28), "memory.limit_in_bytes": str(1 << 28)})], indirect=True
)
def test_the_kernel_s_own_memory_limit_is_seen_from_a_group_within(made: Made) -> None:
    assert 0 < int(made.run("region.available_memory()")) < 1 << 28
