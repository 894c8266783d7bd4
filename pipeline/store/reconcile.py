"""Finds the outcome of each record of an input that has changed: by key, by content, or by request.

All work is done in temporary tables of one connection, so memory stays flat. The ledger changes only in `apply`.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.records import JSON, Record
from pipeline.store import writes
from pipeline.store.queries import of_keys, placeholders
from pipeline.store.rows import COLUMNS, bound, json_text, json_value, unbound

#: Reasons for which outcomes are archived. Records that are `gone` may come back.
GONE, RELABEL, FIXED = "gone", "relabel", "fixed"
#: How many records are read in one step.
BLOCK = 256
_NAMES = ", ".join(COLUMNS)

_BEGIN = """
DROP TABLE IF EXISTS temp.present; DROP TABLE IF EXISTS temp.taken; DROP TABLE IF EXISTS temp.spare;
CREATE TEMP TABLE present (ordinal INTEGER PRIMARY KEY, key TEXT, line INTEGER, source TEXT, digest INTEGER,
    is_bad INTEGER, fields TEXT, request BLOB, seq INTEGER);
CREATE TEMP TABLE taken (seq INTEGER PRIMARY KEY);
"""
_SPARE_COLUMNS = "seq, key, ordinal, digest, fields, request_digest, status"
# Outcomes that have no record yet, including those whose record has been missing from the input. Records that could not
# be read, or have no key, cost nothing, so they are not matched to another place.
_SPARE = f"""
CREATE TEMP TABLE spare (seq INTEGER PRIMARY KEY, key, ordinal, digest, fields, request_digest, status, is_gone);
INSERT INTO spare
    SELECT {_SPARE_COLUMNS}, 0 FROM outcomes WHERE record_problem IS NULL AND seq NOT IN (SELECT seq FROM taken)
    UNION ALL SELECT {_SPARE_COLUMNS}, 1 FROM archived WHERE reason = '{GONE}' AND record_problem IS NULL;
CREATE INDEX temp.spare_key ON spare (key);
"""  # noqa: S608 (constant names)
_FREE = "seq NOT IN (SELECT seq FROM taken)"
# Equal records and outcomes are matched in order: first with first. Cross joins make SQLite join in this order.
_LOOKING = """
CREATE TEMP TABLE looking AS
    SELECT ordinal, these, ROW_NUMBER() OVER (PARTITION BY these ORDER BY ordinal) AS nth
    FROM (SELECT ordinal, {present} AS these FROM present WHERE seq IS NULL AND NOT is_bad)
"""
_PAIRS = """
SELECT p.ordinal, o.seq FROM
    (SELECT seq, {spare} AS these,
        ROW_NUMBER() OVER (PARTITION BY {spare} ORDER BY is_gone, ordinal, seq) AS nth FROM spare WHERE {free}) o
    CROSS JOIN looking p ON p.these = o.these AND p.nth = o.nth
"""
_SAME_FIELDS = """
    CROSS JOIN present a ON a.ordinal = p.ordinal CROSS JOIN spare b ON b.seq = o.seq AND b.fields = a.fields
"""
_PROBLEM = "CASE WHEN json_valid(record_problem) THEN json_extract(record_problem, '$.code') END"
_KNOWN = f"SELECT key, seq, digest, {_PROBLEM}, ordinal, line, source FROM outcomes"  # noqa: S608
_UNPAIRED = f"""
SELECT p.ordinal, p.key, p.line, p.source, p.digest, p.fields, o.seq, o.fields, o.request_digest
FROM present p LEFT JOIN spare o ON o.key = p.key AND NOT o.is_gone AND o.{_FREE}
WHERE p.seq IS NULL AND NOT p.is_bad AND p.ordinal > ? ORDER BY p.ordinal LIMIT ?
"""  # noqa: S608
# A record and the outcome of its key, if neither has another match.
_CHANGED = f"FROM present p JOIN spare o ON o.key = p.key WHERE p.seq IS NULL AND NOT o.is_gone AND o.{_FREE}"


@dataclass(frozen=True, slots=True)
class UnmatchedRecord:
    """A record without an outcome, and the outcome of its key if that has no record."""

    record: Record
    seq: int | None
    fields: Mapping[str, JSON]
    request_digest: bytes | None


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """The result of the matching, as counts of records.

    `changed` have a label and another request now, `fixed` had no label and are asked again; `gone` had a label and are
    missing from the input, `dropped` had none; `changed_keys` and `gone_keys` are examples. `renamed` have another key
    now, `refreshed` other fields; `back` were gone for a while, `fresh` have no outcome, and `stays` keep their label.
    """

    changed: int = 0
    changed_keys: tuple[str, ...] = ()
    fixed: int = 0
    gone: int = 0
    gone_keys: tuple[str, ...] = ()
    dropped: int = 0
    renamed: int = 0
    refreshed: int = 0
    back: int = 0
    fresh: int = 0
    stays: int = 0


def begin(connection: sqlite3.Connection) -> None:
    """Start without records."""
    connection.executescript(_BEGIN)


def add(connection: sqlite3.Connection, records: Sequence[Record], *, trust: bool) -> None:
    """Add records of the input. With `trust`, a record with the same key and digest is the same record."""
    known = _known(connection, [record.key for record in records])
    rows, paired = [], []
    for record in records:
        seq, digest, problem, place = known.get(record.key, (0, 0, None, ()))
        code = record.problem.code if record.problem is not None else None
        same = bool(seq) and digest == record.digest and problem == code and (trust or code is not None)
        if same:
            paired.append((seq,))
        if not same or place != (record.ordinal, record.line, record.source):
            rows.append(_row(record, seq if same else None))
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO taken VALUES (?)", paired)
    connection.executemany(f"INSERT INTO present VALUES ({placeholders(range(9))})", rows)  # noqa: S608
    connection.execute("COMMIT")


def _known(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, tuple[int, int, str | None, object]]:
    return {
        unbound(key): (seq, digest, problem, (ordinal, line, unbound(source)))
        for key, seq, digest, problem, ordinal, line, source in of_keys(connection, _KNOWN, keys)
    }


def _row(record: Record, seq: int | None) -> tuple[object, ...]:
    fields = json_text(record.fields) if seq is None else None
    place = (record.ordinal, bound(record.key), record.line, bound(record.source), record.digest)
    return (*place, record.problem is not None, fields, None, seq)


def by_content(connection: sqlite3.Connection, *, trust: bool) -> int:
    """Match records with outcomes of the same content under any key; return how many outcomes have no record.

    All records must have been added. Several of the same content are matched in order.
    """
    connection.executescript(_SPARE)
    if trust:
        # Digests sort fast. Two records with the digest of one file may name it differently, so compare fields too.
        _pair_all(connection, "digest", "digest", _SAME_FIELDS)
    else:
        _pair_all(connection, "fields", "fields")
    return int(connection.execute(f"SELECT COUNT(*) FROM spare WHERE {_FREE}").fetchone()[0])  # noqa: S608


def by_request(connection: sqlite3.Connection) -> None:
    """Match records and outcomes with identical requests, which would get the same label."""
    _pair_all(connection, "request", "request_digest")


def _pair_all(connection: sqlite3.Connection, present: str, spare: str, also: str = "") -> None:
    connection.execute("DROP TABLE IF EXISTS temp.looking")
    connection.execute(_LOOKING.format(present=present))
    connection.execute("CREATE INDEX temp.looking_these ON looking (these, nth)")
    _pair(connection, _PAIRS.format(spare=spare, free=_FREE) + also)


def _pair(connection: sqlite3.Connection, select: str) -> None:
    """Match these records (by ordinal) with these outcomes (by seq)."""
    connection.execute("DROP TABLE IF EXISTS temp.pairs")
    connection.execute(f"CREATE TEMP TABLE pairs AS {select}")
    connection.execute("CREATE INDEX temp.pairs_ordinal ON pairs (ordinal)")
    connection.execute("INSERT INTO taken SELECT seq FROM pairs")
    connection.execute(
        "UPDATE present SET seq = (SELECT q.seq FROM pairs q WHERE q.ordinal = present.ordinal)"
        " WHERE ordinal IN (SELECT ordinal FROM pairs)"
    )


def unpaired(connection: sqlite3.Connection, after: int) -> list[UnmatchedRecord]:
    """Return the next records without an outcome, after this ordinal."""
    return [_to_unmatched(row) for row in connection.execute(_UNPAIRED, (after, BLOCK))]


def _to_unmatched(row: Sequence[object]) -> UnmatchedRecord:
    ordinal, key, line, source, digest, fields, seq, before, request = row
    record = Record(unbound(source), ordinal, unbound(key), json_value(fields), line, digest)  # type: ignore[arg-type]
    return UnmatchedRecord(record, seq, json_value(before) or {}, request)  # type: ignore[arg-type]


def pair(
    connection: sqlite3.Connection, pairs: Sequence[tuple[int, int]], requests: Sequence[tuple[int, bytes]]
) -> None:
    """Match records (by ordinal) with outcomes (by seq), and store the requests of other records."""
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO taken VALUES (?)", [(seq,) for _, seq in pairs])
    connection.executemany("UPDATE present SET seq = ? WHERE ordinal = ?", [(seq, ordinal) for ordinal, seq in pairs])
    rows = [(digest, ordinal) for ordinal, digest in requests]
    connection.executemany("UPDATE present SET request = ? WHERE ordinal = ?", rows)
    connection.execute("COMMIT")


def counts(connection: sqlite3.Connection) -> MatchCounts:
    """Return the result so far, as counts."""

    def count(text: str) -> int:
        return int(connection.execute(f"SELECT COUNT(*) {text}").fetchone()[0])

    def keys(text: str) -> tuple[str, ...]:
        return tuple(unbound(key) for (key,) in connection.execute(f"{text} LIMIT 5"))

    labelled = "o.status = 'labelled'"
    changed, fixed = count(f"{_CHANGED} AND {labelled}"), count(f"{_CHANGED} AND NOT {labelled}")
    missing = f"FROM outcomes o WHERE o.{_FREE} AND o.key NOT IN (SELECT p.key {_CHANGED})"
    paired = "FROM present p JOIN outcomes o USING (seq)"
    return MatchCounts(
        changed=changed,
        changed_keys=keys(f"SELECT p.key {_CHANGED} AND {labelled} ORDER BY p.ordinal"),
        fixed=fixed,
        gone=count(f"{missing} AND {labelled}"),
        gone_keys=keys(f"SELECT o.key {missing} AND {labelled} ORDER BY o.ordinal"),
        dropped=count(f"{missing} AND NOT {labelled}"),
        renamed=count(f"{paired} WHERE p.key <> o.key"),
        refreshed=count(f"{paired} WHERE p.fields <> o.fields"),
        back=count("FROM present p JOIN spare o USING (seq) WHERE o.is_gone"),
        fresh=count("FROM present WHERE seq IS NULL") - changed - fixed,
        stays=count("FROM taken JOIN outcomes o USING (seq) WHERE o.status = 'labelled'"),
    )


def apply(connection: sqlite3.Connection, *, keep: bool) -> int:
    """Change the ledger to match this input in one transaction, and return how many outcomes have changed.

    With `keep`, a record with another request keeps its label. Outcomes whose records are missing from the input are
    archived, and come back with their records. Nothing that was paid for is deleted.
    """
    changed = "SELECT 1 FROM present WHERE seq IS NOT NULL UNION ALL SELECT 1 FROM outcomes WHERE "
    if connection.execute(f"{changed}{_FREE} LIMIT 1").fetchone() is None:
        return 0
    if keep:
        _pair(connection, f"SELECT p.ordinal AS ordinal, o.seq AS seq {_CHANGED} AND o.status = 'labelled'")
        # The label belongs to the old text, so the row still shows the old text.
        connection.execute("UPDATE present SET fields = NULL WHERE ordinal IN (SELECT ordinal FROM pairs)")
    connection.execute("CREATE INDEX IF NOT EXISTS temp.present_seq ON present (seq)")
    with writes.transaction(connection):
        touched = sum(_archive(connection)) + _move_outcomes(connection)
        if touched:
            writes.forget_files(connection)
    return touched


def _archive(connection: sqlite3.Connection) -> Iterator[int]:
    changed = f"key IN (SELECT p.key {_CHANGED})"
    for reason, condition in (
        (FIXED, "request_digest IS NULL"),
        (FIXED, f"status <> 'labelled' AND {changed}"),
        (RELABEL, changed),
        (GONE, "1"),
    ):
        yield writes.archive_where(connection, f"{_FREE} AND {condition}", (), reason, paid=True)


def _move_outcomes(connection: sqlite3.Connection) -> int:
    """Give the outcomes the keys, places, and fields that their records have now."""
    connection.execute("DROP TABLE IF EXISTS temp.renamed")
    connection.execute(
        "CREATE TEMP TABLE renamed AS SELECT o.key AS old, p.key AS new, o.seq, CAST(x'FF' || o.seq AS BLOB) AS aside"
        " FROM present p JOIN outcomes o USING (seq) WHERE p.key <> o.key"
    )
    for column in ("old", "seq", "aside"):
        connection.execute(f"CREATE UNIQUE INDEX temp.renamed_{column} ON renamed ({column})")
    # Keys may be swapped, and must be unique at every moment, so each first gets a value that no text can be.
    connection.execute(
        "UPDATE outcomes SET asked_as = COALESCE(asked_as, key), key = CAST(x'FF' || seq AS BLOB)"
        " WHERE seq IN (SELECT seq FROM renamed)"
    )
    _restore_gone(connection)
    _rename_turns(connection)
    connection.execute(
        "UPDATE outcomes SET copied_from = (SELECT new FROM renamed WHERE old = copied_from)"
        " WHERE copied_from IN (SELECT old FROM renamed)"
    )
    return connection.execute(
        "UPDATE outcomes SET (key, ordinal, line, source, digest, fields) ="
        " (SELECT p.key, p.ordinal, p.line, p.source, p.digest, COALESCE(p.fields, outcomes.fields)"
        " FROM present p WHERE p.seq = outcomes.seq) WHERE seq IN (SELECT seq FROM present WHERE seq IS NOT NULL)"
    ).rowcount


def _restore_gone(connection: sqlite3.Connection) -> None:
    """Restore outcomes that were archived while their record was missing from the input."""
    back = "FROM archived WHERE seq IN (SELECT seq FROM present WHERE seq IS NOT NULL)"
    made = {"key": "CAST(x'FF' || seq AS BLOB)", "asked_as": "COALESCE(asked_as, key)"}
    values = ", ".join(made.get(column, column) for column in COLUMNS)
    connection.execute(f"INSERT INTO outcomes ({_NAMES}) SELECT {values} {back}")
    connection.execute(f"DELETE {back}")


def _rename_turns(connection: sqlite3.Connection) -> None:
    old = "WHERE key IN (SELECT old FROM renamed)"
    connection.execute(f"UPDATE turns SET key = (SELECT aside FROM renamed WHERE old = turns.key) {old}")  # noqa: S608
    # Answers of an unfinished conversation under a key that is now another record's are of no use to that record.
    connection.execute("DELETE FROM turns WHERE key IN (SELECT new FROM renamed)")
    connection.execute(
        "UPDATE turns SET key = (SELECT new FROM renamed WHERE aside = turns.key)"
        " WHERE key IN (SELECT aside FROM renamed)"
    )
