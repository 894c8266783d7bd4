"""The report: one page about a run for people, written at its end or served while it is active."""

from pipeline.report.data import ReportData, load_report_data
from pipeline.report.live_page import watch
from pipeline.report.page import after_run, render, write_report
