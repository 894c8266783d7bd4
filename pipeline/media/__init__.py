"""Reads images, audio, and documents of records, safely and within limits, just before they are sent."""

from pipeline.media.content import MediaOptions
from pipeline.media.images import has_pillow
from pipeline.media.loader import MediaLoader
from pipeline.media.pdf import has_pdfium
