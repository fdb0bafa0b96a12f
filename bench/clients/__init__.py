"""Other people's clients, and a hostile one, against a `linn serve` that runs."""
