"""Interactive pages of interaction maps: one self-contained HTML file each."""

from captum_interactions.visualization.report.page import notebook_html, report_html, save_report

__all__ = ["notebook_html", "report_html", "save_report"]
