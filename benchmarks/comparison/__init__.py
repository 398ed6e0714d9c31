"""What `python -m benchmarks.peers` is made of."""
