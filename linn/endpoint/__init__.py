"""The one client of OpenAI-compatible servers: whole answers and streams, never without a word."""
