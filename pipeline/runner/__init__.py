"""A run, from settings to summary: the only room that knows every other."""

from __future__ import annotations

from pipeline.providers import load_sdk
from pipeline.runner.census import Check
from pipeline.runner.checks import check
from pipeline.runner.demo import first_rows, lay_demo
from pipeline.runner.first import write_config
from pipeline.runner.fresh import move_aside, what_is_there
from pipeline.runner.listening import Tier
from pipeline.runner.look import status, verify
from pipeline.runner.planlines import plan_lines, rehearsal_lines
from pipeline.runner.planning import plan
from pipeline.runner.previewing import Preview, preview
from pipeline.runner.reckoning import Plan
from pipeline.runner.rehearsing import RehearsedPlan, rehearse_plan
from pipeline.runner.replays import replay
from pipeline.runner.screens import SIMULATED, check_lines, closing_lines, preview_facts, preview_lines
from pipeline.runner.standing import status_lines, watch
from pipeline.runner.start import Wishes, arun, in_loop, run

__all__ = [
    "SIMULATED",
    "Check",
    "Plan",
    "Preview",
    "RehearsedPlan",
    "Tier",
    "Wishes",
    "arun",
    "check",
    "check_lines",
    "closing_lines",
    "first_rows",
    "in_loop",
    "lay_demo",
    "load_sdk",
    "move_aside",
    "plan",
    "plan_lines",
    "preview",
    "preview_facts",
    "preview_lines",
    "rehearsal_lines",
    "rehearse_plan",
    "replay",
    "run",
    "status",
    "status_lines",
    "verify",
    "watch",
    "what_is_there",
    "write_config",
]
