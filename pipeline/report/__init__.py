"""The report: what came of a run, as one page for people, written at its end or served while it is at work."""

from pipeline.report.gather import Found, gather
from pipeline.report.page import render
from pipeline.report.serving import watch
from pipeline.report.writing import after_run, write_report
