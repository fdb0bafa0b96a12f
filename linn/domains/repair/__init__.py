"""Repair of real packages: where their source comes from, how bugs are put in, how hidden tests judge without telling their numbers."""
