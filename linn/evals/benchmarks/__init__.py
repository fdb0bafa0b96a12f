"""Benchmarks: protocols with published scores, one YAML file each, and what runs them."""
