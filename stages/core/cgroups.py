"""The control groups around this process: where the files of a controller lie, in version 2 and in version 1.

/proc/self/cgroup says which group the process is in, /proc/self/mountinfo where a hierarchy is mounted and which of its
groups the mount has as its root; in a container that is often not the root of the machine. What limits a group limits
all groups within, so whoever looks for a limit has to look at every group from the innermost one to the root.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")
"""Pattern of a character that mountinfo escapes because it would end a field, a space for instance."""


def around(controller: str, root: Path = Path("/")) -> list[Path]:
    """The folders of the groups around this process that may limit what `controller` ("cpu", "memory") controls.

    Innermost first, up to the root of the mount. The files in them have the names of version 2 (`cpu.max`) or of
    version 1 (`cpu.cfs_quota_us`), whichever has the controller here; a folder may have neither. `root` is where /proc
    and all that is mounted lie.
    """
    try:
        groups, mounts = (
            (root / "proc/self" / name).read_text(errors="surrogateescape") for name in ("cgroup", "mountinfo")
        )
    except OSError:  # no /proc, or a kernel without control groups
        return []
    own = dict(_own(groups))
    found: list[Path] = []
    for name in ("", controller):  # version 2 has one hierarchy for all controllers, without a name
        known = list(_mounts(mounts, name)) if name in own else []
        for top, at in known:
            if own[name].is_relative_to(top) and ".." not in own[name].parts:
                found += _upwards(root / at.relative_to("/"), own[name].relative_to(top))
                break
        else:  # it is in none of them, but in another namespace; what it is in may still be within what is mounted
            found += [root / at.relative_to("/") for _, at in known[:1]]
    return found


def _own(groups: str) -> Iterator[tuple[str, PurePosixPath]]:
    """(controller, path of the group) by the lines of /proc/self/cgroup, as `4:cpu,cpuacct:/a/b` and `0::/a/b`."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, PurePosixPath(path)


def _mounts(mounts: str, controller: str) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """(group that is its root, where it is) of all mounts that have `controller`, "" for those of version 2."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, top, at, *_ = before.split(" ")
        kind, _, options = after.split(" ", 2)
        if (kind == "cgroup" and controller in options.split(",")) if controller else kind == "cgroup2":
            yield PurePosixPath(_plain(top)), PurePosixPath(_plain(at))


def _upwards(mount: Path, group: PurePosixPath) -> list[Path]:
    return [mount / each for each in (group, *group.parents)]


def _plain(field: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
