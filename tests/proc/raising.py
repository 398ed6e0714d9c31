"""`triptych`, one method of whose router raises at one call: `python -m tests.proc.raising METHOD CALL serve ...`."""

import sys
from itertools import count
from typing import Any

from orchestrator.__main__ import main
from orchestrator.routing.router import Router

if __name__ == "__main__":
    method, at = sys.argv[1], int(sys.argv[2])
    original, calls = getattr(Router, method), count(1)

    def raising(self: Router, *args: Any, **named: Any) -> Any:
        if next(calls) == at:
            raise RuntimeError("nobody foresaw this")
        return original(self, *args, **named)

    setattr(Router, method, raising)
    sys.exit(main(sys.argv[3:]))
