"""Anonymous shared memory: a memfd of fixed size that is inherited by descriptor and has no name to leak."""

import fcntl
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from stages.core.errors import StartFailed

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Region:
    """A mapped memfd. The creator decides its size, once; whoever gets the descriptor maps the same bytes.

    Sealed against resizing, so that no process can make another one's access fault; allocated in full at
    creation, so that a machine without the memory says so at the start and not by SIGBUS later.
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd = fd
        self.nbytes = nbytes
        self._map = mmap.mmap(fd, nbytes)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "Region":
        """Allocate `nbytes`. Raises StartFailed, naming the bytes, when they cannot be had."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, nbytes)
        except OSError as error:
            os.close(fd)
            raise StartFailed(f"cannot allocate {nbytes:,} bytes of shared memory: {error.strerror}") from error
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(fd, nbytes)

    def array(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes [offset, offset + nbytes) as a writable uint8 array over the mapping."""
        return np.frombuffer(self._map, dtype=np.uint8, count=nbytes, offset=offset)

    def close(self) -> None:
        """Give up the descriptor. The mapping itself lives as long as arrays over it do, then goes with them."""
        os.close(self.fd)
