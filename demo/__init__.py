"""How the embedded models are made and judged."""

from stages import telemetry

telemetry.switch_off()
