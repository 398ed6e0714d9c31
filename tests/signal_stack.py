"""The alternate stack on which signals are handled, and how to be rid of it.

Every OpenVINO CPU plugin gives the thread that makes it an alternate signal stack, and at its end gives back the one
that it found. Where two plugins of one process do not end in reverse order, the second gives back that of the first,
which is unmapped by then, and the next signal that is handled kills the process (SIGSEGV, without a word).
"""

import ctypes

_SS_DISABLE = 2


class _Stack(ctypes.Structure):
    """The stack_t of sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def drop_signal_stack() -> None:
    """Handle the signals of this thread on its ordinary stack from now on."""
    if ctypes.CDLL(None, use_errno=True).sigaltstack(ctypes.byref(_Stack(None, _SS_DISABLE, 0)), None):
        raise OSError(ctypes.get_errno(), "sigaltstack")
