"""linn's own base models, and how they are made."""
