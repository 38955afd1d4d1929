"""The report: one HTML file that opens offline, made from the ledger at any time."""

from campaign.report.page import write_report

__all__ = ["write_report"]
