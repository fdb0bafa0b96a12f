"""Attacks made by someone who did not write what they are made on: programs, and replies."""
