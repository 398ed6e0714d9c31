"""The tuner: stages measured alone, pipelines simulated, the most promising run for real."""
