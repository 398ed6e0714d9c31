from stages import telemetry

telemetry.switch_off()
