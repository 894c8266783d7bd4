"""Controls a running session through its run folder and its config file, and detects a stall.

    another terminal                      the run folder                     the run
    send("pause")  ───────────────────▶  control.jsonl          ─────────▶  Inbox.read_new()
    await_answer() ◀───────────────────  control.answers.jsonl  ◀─────────  Inbox.answer()
    an editor      ───────────────────▶  the config file        ─────────▶  ConfigWatch.changed()

`setting_changes` decides what an order or an edit may change. The run carries it out.
"""

from pipeline.control.config_watch import ConfigWatch
from pipeline.control.orders import NO_ANSWER, VERBS, Inbox, Order, OrderReply, SentOrder, await_answer, send
from pipeline.control.setting_changes import (
    FILE_ONLY_KEYS,
    LIVE_TABLES,
    LiveSettings,
    SettingChange,
    SettingChanges,
    applied_line,
    refused_line,
    sort_changes,
)
from pipeline.control.watchdog import Watchdog, describe_tasks, group_tasks
