"""The reason why nobody answers at an address, found past ZeroMQ, which only says that there is no connection yet."""

import socket as unix

_LOOK_S = 1.0
_GREETING = b"\xff"
"""The first byte that every ZeroMQ peer sends as soon as it has accepted a connection (ZMTP 3.1, RFC 37)."""

_START = "start `triptych serve`, or name its address"


def why_no_answer(address: str) -> str:
    """The reason in one line, with the way out. Takes two seconds at most: for when all waiting was in vain."""
    try:
        with _connect(address) as there:
            there.settimeout(_LOOK_S)
            said = _hear(there)
            if said is None:  # a ZeroMQ peer would have greeted; a web server waits to be asked
                there.sendall(b"GET / HTTP/1.0\r\n\r\n")
                said = _hear(there)
    except (ConnectionResetError, BrokenPipeError):
        said = b""
    except TimeoutError:
        return f"{address} cannot be reached: no connection within {_LOOK_S:.0f} s; {_START}"
    except BlockingIOError:  # of a unix socket: more wait there than it lets wait
        said = None
    except (ConnectionRefusedError, FileNotFoundError):
        return f"nothing listens at {address}; {_START}"
    except (OSError, ValueError) as error:
        return f"{address} cannot be reached: {getattr(error, 'strerror', None) or error}; {_START}"
    if said is None:
        return f"something listens at {address} and does not answer; is it stopped (kill -CONT), or hanging?"
    if said.startswith(_GREETING):
        return f"what listens at {address} takes no connection now; try again, or see what `triptych serve` says"
    if said.startswith(b"HTTP/"):
        return f"what listens at {address} is a web server and no pipeline; {_START}"
    return f"what listens at {address} is another program and no pipeline; {_START}"


def _connect(address: str) -> unix.socket:
    scheme, _, place = address.partition("://")
    if scheme == "ipc":
        there = unix.socket(unix.AF_UNIX)
        try:
            there.setblocking(False)  # to wait for a server that is stopped takes for ever
            there.connect("\0" + place[1:] if place.startswith("@") else place)
        except BaseException:
            there.close()
            raise
        return there
    host, _, port = place.rpartition(":")
    return unix.create_connection((host.strip("[]"), int(port)), _LOOK_S)


def _hear(there: unix.socket) -> bytes | None:
    """The first bytes that come, none if it hangs up; None if nothing comes in time."""
    try:
        return there.recv(16)
    except TimeoutError:
        return None
