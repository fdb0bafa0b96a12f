"""Engines that outgrow one machine; `linn/engine/open.py` opens them by name."""
