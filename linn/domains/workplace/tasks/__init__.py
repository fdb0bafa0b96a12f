"""The requests that a workplace prompt is made of."""
