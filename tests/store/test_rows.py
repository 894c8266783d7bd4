"""An outcome comes back from the ledger as it was, whatever text it holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from hypothesis import given
from store_samples import OUTCOMES

from pipeline.records import Outcome
from pipeline.store.queries import known, rows_after
from pipeline.store.rows import COLUMNS, bound, to_row, unbound
from pipeline.store.schema import _TABLES
from pipeline.store.writes import commit


def fresh() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in _TABLES:
        connection.execute(statement)
    return connection


@given(OUTCOMES)
def test_any_outcome_comes_back_equal(outcome: Outcome) -> None:
    with closing(fresh()) as connection:
        commit(connection, [to_row(7, outcome)], None, {})
        assert rows_after(connection, 0, 10) == [(7, outcome)]
        assert known(connection, [outcome.record.key]).keys() == {outcome.record.key}


def test_the_tables_columns_are_those_of_a_row() -> None:
    with closing(fresh()) as connection:
        for table, more in (("outcomes", ()), ("archived", ("archived_at", "reason", "paid"))):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            assert names == [*COLUMNS, *more]


def test_a_lone_surrogate_and_its_escape_are_two_keys() -> None:
    keys = ["\ud800", "\\ud800", "\ufffd"]
    assert [unbound(bound(key)) for key in keys] == keys
    assert len({bound(key) for key in keys}) == 3
