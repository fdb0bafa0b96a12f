"""Test-time compute (paper §5): many rollouts on one task, by a strategy, under a budget."""
