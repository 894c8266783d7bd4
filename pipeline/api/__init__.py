"""What Python calls: plain functions that give their result as `run` does, and results that show themselves.

The asynchronous forms, for a program with an event loop of its own, have an `a` in front: `arun`, `acheck`, ...
"""

from pipeline.api.exports import *
from pipeline.api.measures import *
from pipeline.api.reviews import *
from pipeline.api.runs import *
