"""Media: the pictures, sounds and documents of a record, read safely and within bounds, just before they are sent."""

from pipeline.media.loader import MediaLoader
from pipeline.media.pages import has_pdfium
from pipeline.media.parts import MediaOptions
from pipeline.media.pictures import has_pillow
