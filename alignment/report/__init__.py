"""The result of a run as ``report.json`` and a self-contained page: see ``alignment.report.write_report``."""
