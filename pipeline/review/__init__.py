"""Reviews of labels by people: draws, their answers, and the view of one record."""

from pipeline.review.answer_import import take_answers
from pipeline.review.drawfile import draw_to_file, refuse_existing_file, write_records
from pipeline.review.drawing import DrawOptions
from pipeline.review.page import review_page
from pipeline.review.record_view import show_record
