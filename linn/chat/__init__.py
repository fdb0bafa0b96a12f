"""The chat protocol: messages, text, token ids, and rows as requests."""
