"""People look at labels: draws, their answers, and one record with all that is known of it."""

from pipeline.review.answer_import import take_answers
from pipeline.review.drawfile import draw_to_file, refuse_existing_file, write_records
from pipeline.review.drawing import DrawOptions
from pipeline.review.page import review_page
from pipeline.review.record_view import show_record
