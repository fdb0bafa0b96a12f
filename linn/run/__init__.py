"""Stage after stage in one run folder."""
