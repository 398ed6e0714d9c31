"""Anonymous shared memory: a memfd of fixed size that is inherited by descriptor and has no name to leak."""

import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import StartFailed

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Region:
    """A mapped memfd. The creator decides its size, once; whoever gets the descriptor maps the same bytes, all of them.

    Sealed against resizing, so that no process can make another one's access fault; allocated in full at
    creation, so that a machine without the memory says so at the start and not by SIGBUS later.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.nbytes = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.nbytes)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "Region":
        """Allocate `nbytes`. Raises StartFailed, naming the bytes, when they cannot be had."""
        # Asked first: the kernel would find out only when it has given away all there is, and kill somebody then.
        if nbytes > (left := available_memory()):
            raise StartFailed(f"cannot allocate {nbytes:,} bytes of shared memory: {left:,} bytes are available")
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, nbytes)
        except OSError as error:
            os.close(fd)
            raise StartFailed(f"cannot allocate {nbytes:,} bytes of shared memory: {error.strerror}") from error
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(fd)

    def array(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes [offset, offset + nbytes) as a writable uint8 array over the mapping."""
        return np.frombuffer(self._map, dtype=np.uint8, count=nbytes, offset=offset)

    def close(self) -> None:
        """Give up the descriptor. The mapping itself lives as long as arrays over it do, then goes with them."""
        os.close(self.fd)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had now: MemAvailable, or less where the memory.max of a cgroup (v2) around us leaves less."""
    left = [int((root / "proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024]
    own = (root / "proc/self/cgroup").read_text().partition("0::/")[2].partition("\n")[0]
    innermost = root / "sys/fs/cgroup" / own
    for cgroup in (innermost, *innermost.parents):
        try:
            limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
            stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no cgroup with a memory controller, or no limit ("max")
            continue
        # File cache counts as used, but is given up when memory is asked for.
        left.append(limit - used + int(stat["inactive_file"]) + int(stat["active_file"]))
    return max(0, min(left))
