"""Checkpoints behind the protocol of OpenAI's servers, and conversations at a terminal."""
