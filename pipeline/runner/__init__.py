"""A run, from settings to summary: one session, what steers it, and the folder it leaves in order."""

from pipeline.runner.columns import Fields, fields_of
from pipeline.runner.compare import find_changes, job_digest
from pipeline.runner.corrections import count_corrections
from pipeline.runner.exporting import export
from pipeline.runner.fresh import move_aside, what_is_there
from pipeline.runner.lanes import refuse_open_batches
from pipeline.runner.live import read_live, showing, write_live
from pipeline.runner.look import status, verify
from pipeline.runner.lookshards import counted_in
from pipeline.runner.measured import latest_evaluation
from pipeline.runner.opening import expected, is_here, open_screen, overridden_by
from pipeline.runner.paid import spent_of
from pipeline.runner.renaming import rename
from pipeline.runner.replays import replay
from pipeline.runner.rewriting import Rewritten, rewrite
from pipeline.runner.start import RunOptions, arun, in_loop, run
from pipeline.runner.steering import Act, Steering
