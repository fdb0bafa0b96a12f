"""The engine of one machine: one-thread worker processes."""
