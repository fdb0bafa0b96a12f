"""How a GPU computes what `nemotron_h` computes on a CPU: the same numbers, other operators.

The CPU's path is the reference. Which of both runs is decided in `choice` alone.
"""
