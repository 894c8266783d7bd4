"""The documented Python functions and their results. A result displays itself.

Each function that awaits has an asynchronous form with an `a` in front, such as `arun`, for programs with an event
loop.
"""

from pipeline.api.exports import *
from pipeline.api.measures import *
from pipeline.api.reviews import *
from pipeline.api.runs import *
