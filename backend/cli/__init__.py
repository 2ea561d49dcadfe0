"""The command line: `python -m backend`."""
