"""Runs that are disturbed until they end, and inputs that are damaged: `python -m bench.chaos`."""
