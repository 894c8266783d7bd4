"""The page on which a person checks the labels of a draw, one record per screen."""

from pipeline.review.page.estimates import draw_figures
from pipeline.review.page.serve import review_page
