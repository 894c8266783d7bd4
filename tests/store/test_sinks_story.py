"""Any story of commits, crashes, retries and changed columns ends with files that are the ledger's rows, each once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from store_samples import VALUES, labelled, read_csv, unlabelled

from pipeline.codec import clean
from pipeline.records import Outcome, Status
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks, prove_files, sinks
from pipeline.store.formats import cell

FIELDS = st.dictionaries(st.sampled_from(["id", "text", "a,b", "label"]), VALUES, min_size=1)
LABELS = st.fixed_dictionaries({"label": VALUES}, optional={"score": VALUES})
LAYOUTS = st.builds(
    Layout,
    labels=st.just(("label",)),
    columns=st.sampled_from([(), ("id",), ("text", "id")]),
    fixed=st.booleans(),
    formats=st.just(("csv", "jsonl")),
    order=st.sampled_from(["completion", "input"]),
)


class Story(RuleBasedStateMachine):
    """The model is a dict: the outcomes that were committed, by seq."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._sizes = sinks.SYNC_BYTES, sinks.SMALL_BYTES
        sinks.SYNC_BYTES, sinks.SMALL_BYTES = 100, 150
        self.path = Path(self._folder.name)
        self.run_dir = RunDir(self.path)
        self.rows: dict[int, Outcome] = {}
        self.fresh = 0
        self.ledger: Any = None
        self.sinks: Any = None

    def teardown(self) -> None:
        self.crash_now()
        sinks.SYNC_BYTES, sinks.SMALL_BYTES = self._sizes
        self._runner.close()
        self._folder.cleanup()

    def crash_now(self) -> None:
        if self.ledger is not None:
            self._runner.run(self.sinks.close())
            self._runner.run(self.ledger.close())

    @initialize(layout=LAYOUTS)
    def begin(self, layout: Layout) -> None:
        self.layout = layout
        self.ledger = self._runner.run(Ledger.open(self.path / "ledger.db"))
        self.sinks = self._runner.run(Sinks.start(self.run_dir, self.ledger, layout))

    def outcome(self, number: int, fields: dict[str, Any], label: dict[str, Any] | None) -> Outcome:
        return unlabelled(number) if label is None else labelled(number, label, fields=fields)

    @rule(
        made=st.lists(st.tuples(st.integers(0, 3), FIELDS, st.none() | LABELS), min_size=1, max_size=4),
        shown=st.integers(0, 9),
    )
    def commit(self, made: list[tuple[int, dict[str, Any], dict[str, Any] | None]], shown: int) -> None:
        """New outcomes; one time in ten the rows never come, as after a kill or an error between the two."""
        batch = []
        for skip, fields, label in made:
            batch.append(self.outcome(self.fresh, fields, label))
            self.fresh += 1 + skip
        seqs = self._runner.run(self.ledger.commit(batch, self.sinks.checkpoints()))
        self.rows.update(zip(seqs, batch, strict=True))
        if shown:
            self._runner.run(self.sinks.write(batch, seqs))

    @rule(number=st.integers(0, 30), label=LABELS)
    def commit_late(self, number: int, label: dict[str, Any]) -> None:
        """A record that others have overtaken."""
        if f"r{number}" in {outcome.record.key for outcome in self.rows.values()}:
            return
        batch = [labelled(number, label)]
        seqs = self._runner.run(self.ledger.commit(batch, self.sinks.checkpoints()))
        self.rows.update(zip(seqs, batch, strict=True))
        self._runner.run(self.sinks.write(batch, seqs))
        self.fresh = max(self.fresh, number + 1)

    @rule()
    def retry(self) -> None:
        self._runner.run(self.ledger.archive(Selection(statuses=frozenset({Status.FAILED})), "retry"))
        self.rows = {seq: row for seq, row in self.rows.items() if row.status is not Status.FAILED}

    @rule(cuts=st.lists(st.integers(0, 2000), min_size=3, max_size=3), again=st.none() | LAYOUTS)
    def crash(self, cuts: list[int], again: Layout | None) -> None:
        self.crash_now()
        for name, cut in zip(("labels.csv", "labels.jsonl", "failed.csv"), cuts, strict=True):
            # In the input's order there is none before the first session has ended.
            if (self.path / name).exists():
                with (self.path / name).open("r+b") as file:
                    file.truncate(cut)
        self.begin(again or self.layout)

    @rule()
    def finish(self) -> None:
        self._runner.run(self.sinks.finish())
        self.check()
        self.crash_now()
        self.begin(self.layout)

    @precondition(lambda self: self.ledger is not None)
    @rule()
    def look(self) -> None:
        """Between two crashes every file is the beginning of what it will be."""
        assert [proof for proof in self._runner.run(prove_files(self.run_dir, self.ledger)) if not proof.ok] == []

    def check(self) -> None:
        wanted = sorted(self.rows.items())
        if self.layout.order == "input":
            wanted.sort(key=lambda item: item[1].record.ordinal)
        outcomes = [outcome for _, outcome in wanted]
        rows = read_csv(self.path / "labels.csv")
        good = [outcome for outcome in outcomes if outcome.status is Status.LABELLED]
        assert len(rows) == len(good)
        for row, outcome in zip(rows, good, strict=True):
            assert row["label"] == clean(cell(outcome.label["label"]))
            assert row.get("score", "") == clean(cell(outcome.label.get("score")))
            for title in row.keys() & {"id", "text", "a,b", "input_label"}:
                assert row[title] == clean(cell(outcome.record.fields.get(title.removeprefix("input_"))))
        failed = [row["key"] for row in read_csv(self.path / "failed.csv")]
        assert failed == [outcome.record.key for outcome in outcomes if outcome.status is not Status.LABELLED]
        proofs = self._runner.run(prove_files(self.run_dir, self.ledger))
        assert [(proof.name, proof.ok, proof.rows) for proof in proofs] == [
            ("labels.csv", True, len(good)),
            ("labels.jsonl", True, len(good)),
            ("failed.csv", True, len(failed)),
        ]


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
