"""What can be said before a run: its checks, a preview, a plan, a rehearsal."""

from pipeline.planner.checks import check
from pipeline.planner.pilot import plan
from pipeline.planner.previews import preview
from pipeline.planner.rehearsals import rehearse_plan
