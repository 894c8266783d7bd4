"""Runs one session, from settings to summary, with its controls and its folder."""

from pipeline.runner.columns import ColumnCheck, check_columns
from pipeline.runner.corrections import RewriteResult, count_corrections, rewrite
from pipeline.runner.costs import total_spend
from pipeline.runner.label_renames import rename
from pipeline.runner.lanes import refuse_open_batches
from pipeline.runner.live_controls import Action, ControlLoop
from pipeline.runner.opening import describe_overrides, expected_usage, is_local, print_opening
from pipeline.runner.replays import replay
from pipeline.runner.run_archive import describe_existing_run, move_aside
from pipeline.runner.run_changes import find_changes, job_digest
from pipeline.runner.run_status import count_outcomes, status
from pipeline.runner.session_parts import RunOptions
from pipeline.runner.session_view import background_tasks, read_live, write_live
from pipeline.runner.sql_export import export
from pipeline.runner.start import arun, run, run_sync
from pipeline.runner.summary import latest_evaluation
from pipeline.runner.verification import verify
