"""Samples to an optimiser step."""
