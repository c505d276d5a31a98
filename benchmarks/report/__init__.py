"""Tables and pictures of the rows in benchmarks/results: ``python -m benchmarks.report``."""

from benchmarks.report.command import main

__all__ = ["main"]
