"""The batch lane as a user tries it: an endpoint in one terminal, runs in another, and no key."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from batches.lanes import BATCH
from end_to_end.forked import Fork
from end_to_end.stage import environment, project


def test_batches_can_be_tried_from_the_command_line(tmp_path: Path) -> None:
    words = ["--port", "0", "--batch-s", "0.1", "--batch-queue-tokens", "9000", "--latency-ms", "0"]
    faults = ["upload_lost=0.3", "batch_empty_error_file=0.5", "line_missing=0.2", "batch_lost=0.5"]
    asked = ["rehearse", *words, *(word for fault in faults for word in ("--batch-fault", fault))]
    endpoint = Fork(asked, tmp_path, environment())
    try:
        url = re.search(r"http://\S+", endpoint.stderr.readline())
        assert url is not None
        user = project(tmp_path / "project", url.group(), count=40, batch=BATCH)
        user.configure(model={"lane": "batch"})
        summary = user.run()
        assert (summary["labelled"], summary["simulated"]) == (40, True)
        assert summary["lanes"]["batch"]["answers"] == 40
        assert user.verify()["pending"] == 0
    finally:
        endpoint.send_signal(signal.SIGINT)
        _, told = endpoint.communicate()
    assert "40 calls: 40 answers" in told


def test_a_fault_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    endpoint = Fork(["rehearse", "--batch-fault", "batch_late"], tmp_path, environment())
    _, told = endpoint.communicate()
    assert endpoint.returncode == 2
    assert "batch_faults is 'batch_late'; expected one of upload_lost, batch_lost" in told.replace("\n", " ")
