"""Checks, previews, plans, and rehearsals before a run."""

from pipeline.planner.checks import check
from pipeline.planner.pilot import plan
from pipeline.planner.previews import preview
from pipeline.planner.rehearsals import rehearse_plan
