"""`python -m linn.cli` is the command `linn`."""

from linn.cli.main import main

main()
