"""What can be said before a run: its checks, a preview, a plan, a rehearsal."""

from pipeline.planner.checks import check
from pipeline.planner.planning import plan
from pipeline.planner.previewing import preview
from pipeline.planner.rehearsing import rehearse_plan
