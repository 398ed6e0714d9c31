"""The recipe of the embedded models: how they are made and judged."""

from stages import telemetry

telemetry.switch_off()
