"""Nemotron-H in plain PyTorch."""
