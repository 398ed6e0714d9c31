"""Traces: facts that the hub records, and what can be told from them."""
