"""linn beside other packages, on one thread of this machine's CPU: `python -m bench.peers`."""
