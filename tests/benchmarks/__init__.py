"""Measurements of the studio, each beside its alternative: `python -m tests.benchmarks`."""
