"""Run folder -> one self-contained HTML file, and the same tables as data; reads files only."""

from linn.report.page import build
from linn.report.tables import recovery, table

__all__ = ["build", "recovery", "table"]
