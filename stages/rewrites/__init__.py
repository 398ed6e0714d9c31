"""Edits of model graphs, made between reading and compiling."""
