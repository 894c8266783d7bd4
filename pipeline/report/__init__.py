"""The report: what came of a run, as one page for people, written at its end or served while it is at work."""

from pipeline.report.data import ReportData, load_report_data
from pipeline.report.live_page import watch
from pipeline.report.page import render
from pipeline.report.report_file import after_run, write_report
