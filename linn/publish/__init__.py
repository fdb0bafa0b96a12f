"""Handing a run on: exports with cards written from the ledger, and data with its licences."""
