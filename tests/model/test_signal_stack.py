"""Signals in a process in which CPU plugins of OpenVINO have come and gone."""

from collections.abc import Callable

SIGNALLED = """
import os, signal, sys
import openvino as ov
from tests.signal_stack import drop_signal_stack

came = []
signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
first, second = ov.Core(), ov.Core()
for core in (first, second):
    core.get_property("CPU", "FULL_DEVICE_NAME")
del core, first, second
if sys.argv[1] == "dropped":
    drop_signal_stack()
os.kill(os.getpid(), signal.SIGUSR1)
assert came
"""


def test_a_signal_is_handled_after_plugins_have_ended_in_any_order(python: Callable[..., str]) -> None:
    python(SIGNALLED, "dropped")
