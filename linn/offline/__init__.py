"""Verbs over rows, without a run."""
