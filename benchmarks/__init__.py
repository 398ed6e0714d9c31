"""Measurements that docs/measured.md quotes. They print figures and assert nothing."""

from stages import telemetry

telemetry.switch_off()
