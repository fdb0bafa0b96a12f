"""A recipe: its schema, reading it from YAML, explaining its keys."""
