"""Formats facts as text for people. This package does not know the settings."""

from pipeline.show.advice import SYSTEMATIC, AdviceContext, advise
from pipeline.show.baselines import baseline_lines
from pipeline.show.certificates import certificate_text, certify_lines
from pipeline.show.comparisons import comparison_lines, trial_lines
from pipeline.show.evaluations import evaluation_lines
from pipeline.show.exports import data_lines, export_lines, renamed_lines, report_lines
from pipeline.show.formatting import SIMULATED, plain
from pipeline.show.labelview import CLASSES_SHOWN, countable_labels, numbers_in_order, shares_lines
from pipeline.show.planview import codes_text, plan_lines, rehearsal_lines
from pipeline.show.recordview import record_lines
from pipeline.show.reviewview import answers_lines, draw_lines, page_lines, reviewed_lines
from pipeline.show.statusview import batches_text, merged_lines, status_lines
from pipeline.show.views import (
    check_lines,
    closing_lines,
    lane_texts,
    net_text,
    preview_facts,
    preview_lines,
    votes_text,
)
