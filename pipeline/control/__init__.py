"""A running session is steered through its run folder and its config file, and watched for standing still.

    another terminal                      the run folder                     the run
    send("pause")  ───────────────────▶  control.jsonl          ─────────▶  Inbox.read_new()
    await_answer() ◀───────────────────  control.answers.jsonl  ◀─────────  Inbox.answer()
    an editor      ───────────────────▶  the config file        ─────────▶  ConfigWatch.changed()

What an order or an edit may change is decided here (`changes`); that it is done is the run's part.
"""

from pipeline.control.edits import (
    FILE_ONLY_KEYS,
    LIVE_TABLES,
    LiveChange,
    Shift,
    Standing,
    applied_line,
    refused_line,
    sort_changes,
)
from pipeline.control.orders import NO_ANSWER, VERBS, Inbox, Order, Reply, Ticket, await_answer, send
from pipeline.control.watch import ConfigWatch
from pipeline.control.watchdog import Watchdog, describe_tasks, grouped
