"""Loads for a running pipeline: what arrives when, how it is sent, and what became of it in figures."""
