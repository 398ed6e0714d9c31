"""The parts of `python -m benchmarks.peers`."""
