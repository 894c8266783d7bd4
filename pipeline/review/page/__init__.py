"""The page on which a person checks the labels of a draw, one record a screen."""

from pipeline.review.page.figures import draw_figures
from pipeline.review.page.serving import review_page
