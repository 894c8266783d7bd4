"""An OpenAI-compatible endpoint on loopback: simulated labels, real accounting, injected faults, and a call log."""

from pipeline.rehearsal.call_log import CallLog, CallTotals, read_call_log
from pipeline.rehearsal.faults import BATCH_FAULTS, FAULT_KINDS
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.server import Rehearsal, serve
