"""From samples to an optimiser step."""
