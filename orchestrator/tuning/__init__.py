"""How to place the stages on a machine: measured alone, simulated together, tried for real."""
