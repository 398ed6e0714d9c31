"""OpenVINO's telemetry: where it is not switched off, an import of openvino reports to an analytics host.

It writes an id of the user into `~/intel`, and forks a child that asks DNS and posts. In a stage that child would hold
the stage's descriptors, and outlive it.
"""

import sys


def switch_off() -> None:
    """Keep this process from sending any, whatever is imported from now on.

    OpenVINO's packages send through `openvino_telemetry`, which all of them do without where it is not installed; to
    this process it is not. Nothing is written, and other programs of the user send or do not send as before.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how the import system spells "not there"
