"""People look at labels: draws, their answers, and one record with all that is known of it."""

from pipeline.review.drawfile import draw_to_file, refuse_existing, write_records
from pipeline.review.drawing import DrawOptions
from pipeline.review.filled import take_answers
from pipeline.review.onerecord import show_record
from pipeline.review.page import review_page
