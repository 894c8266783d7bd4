"""People look at labels: draws, their answers, and one record with all that is known of it."""

from __future__ import annotations

from pipeline.review.drawfile import draw_to_file, refuse_existing, write_records
from pipeline.review.drawing import DrawOptions, draw_records, drawn_facts
from pipeline.review.filled import take_answers
from pipeline.review.folder import Reviewed, reviewed
from pipeline.review.onerecord import show_record
from pipeline.review.page import review_page
from pipeline.review.rewriting import Rewritten, rewrite

__all__ = [
    "DrawOptions",
    "Reviewed",
    "Rewritten",
    "draw_records",
    "draw_to_file",
    "drawn_facts",
    "refuse_existing",
    "review_page",
    "reviewed",
    "rewrite",
    "show_record",
    "take_answers",
    "write_records",
]
