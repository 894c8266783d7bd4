"""Verifies a run from its files alone: each row is labeled, rejected, failed, pending, or left out, exactly once."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.records import Record, Status, is_left_out
from pipeline.store import BatchBook, Ledger, Part, PartState, RunDir, SqlPlace, prove_files

_MEND_LEDGER = (
    "Put back a copy of the run folder. Records whose rows cannot be read are asked again by: "
    "labelpipe retry --only internal_error"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a verification. `counts` has labelled, rejected, and failed; with the input also rows_in, pending,
    and orphans, and left_out if [input] does not take all records: the records without an outcome among those.

    An orphan is an outcome whose record is no longer in the input.
    """

    run_dir: Path
    checks: tuple[Check, ...]
    counts: Mapping[str, int]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok for check in self.checks)

    def lines(self) -> list[str]:
        """Format the report for people."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [f"{'ok  ' if check.ok else 'BAD '} {check.name:<{width}}  {check.detail}" for check in self.checks]
        bad = sum(not check.ok for check in self.checks)
        return [
            *lines,
            f"{self.run_dir}: {'verified.' if self.ok else f'NOT verified: {bad} of {len(lines)} are bad.'}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "run_dir": str(self.run_dir),
            "ok": self.ok,
            "counts": dict(self.counts),
            "checks": [asdict(check) for check in self.checks],
        }


async def verify(
    run_dir: RunDir,
    *,
    records: AsyncIterator[Sequence[Record]] | None = None,
    by_fields: bool = True,
    find_url: Callable[[SqlPlace], str | None] = lambda place: place.url,
) -> Report:
    """Verify a run from its files; if its input is given as batches of records, account for each record.

    `by_fields`: records with the same fields are the same, which does not hold if a field names a file that is read.

    `find_url` returns the URL of the run's database table, if it has one and the URL is known.

    Memory stays flat. The report contains all findings. Raises SetupError only if there is no ledger, or if a file of
    the run is a link.
    """
    run_dir.refuse_links()
    checks = [_manifest(run_dir)]
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        try:
            checks.append(await _ledger(ledger))
            proofs = await prove_files(run_dir, ledger, find_url)
            checks += [Check(proof.name, proof.ok, proof.detail) for proof in proofs]
            counts = {status.value: count for status, count in (await ledger.count_by_status()).items()}
            checks.append(_summary(run_dir, counts))
            checks += _batches([part for part in await BatchBook(ledger).parts() if not part.was_split])
            if records is not None:
                check, more = await _account(ledger, records, sum(counts.values()), by_fields=by_fields)
                checks.append(check)
                counts |= more
        except StoreError as error:
            checks.append(Check("ledger.db", False, str(error)))
            counts = {}
    return Report(run_dir.path, tuple(checks), counts)


def _manifest(run_dir: RunDir) -> Check:
    try:
        manifest = run_dir.read_manifest()
    except SetupError as error:
        return Check("manifest.json", False, str(error))
    if manifest is None:
        return Check("manifest.json", False, "is missing, so it is unknown what this run labels.")
    return Check("manifest.json", True, "readable." + (" SIMULATED LABELS." if manifest.get("simulated") else ""))


async def _ledger(ledger: Ledger) -> Check:
    faults = await ledger.faults()
    if faults:
        return Check("ledger.db", False, f"is damaged: {'; '.join(faults)}. {_MEND_LEDGER}")
    return Check("ledger.db", True, f"sound; {sum((await ledger.count_by_status()).values()):,} keys, each once.")


def _batches(parts: Sequence[Part]) -> list[Check]:
    """Compare the usage of the lines of each batch with what the server reports for the batch."""
    reported = [part for part in parts if part.state in (PartState.READ, PartState.CLOSED) and part.facts.get("usage")]
    if not parts:
        return []
    wrong = [part for part in reported if _total_tokens(part.books.get("usage")) != _total_tokens(part.facts["usage"])]
    for part in wrong[:1]:
        lines, server = _total_tokens(part.books.get("usage")), _total_tokens(part.facts["usage"])
        detail = (
            f"{len(wrong):,} of {len(reported):,} batches: their lines and the server's count differ, the first at "
            f"part {part.number} ({part.batch_id}): {lines:,} and {server:,} tokens."
        )
        return [Check("batches", False, detail)]
    open_text = f"; {sum(part.is_open for part in parts):,} are open" if any(part.is_open for part in parts) else ""
    return [
        Check("batches", True, f"{len(reported):,} of {len(parts):,}: the lines match the server's count{open_text}.")
    ]


def _total_tokens(usage: Sequence[int] | None) -> int:
    """Add prompt and completion tokens."""
    return sum((usage or ())[:2])


def _summary(run_dir: RunDir, counts: Mapping[str, int]) -> Check:
    try:
        summary = run_dir.read_summary()
    except SetupError as error:
        return Check("summary.json", False, str(error))
    if summary is None:
        return Check("summary.json", True, "does not exist: the last session has not ended, or was killed.")
    wrong = [
        f"{name} {summary.get(name)}, the ledger has {count}"
        for name, count in counts.items()
        if summary.get(name) != count
    ]
    return Check("summary.json", not wrong, f"says {'; '.join(wrong)}." if wrong else "the counts match the ledger.")


async def _account(
    ledger: Ledger, batches: AsyncIterator[Sequence[Record]], outcomes: int, *, by_fields: bool
) -> tuple[Check, dict[str, int]]:
    """Look each record of the input up in the ledger, so that pending records are counted and not inferred.

    An outcome belongs to the record whose content it has: another record may have its key by now.
    """
    counts_by_status = dict.fromkeys(Status, 0)
    rows_in = repeated = pending = left_out = 0
    others: list[str] = []
    await ledger.begin_pass()
    async for batch in batches:
        records, left = _split_left_out(batch)
        for status in await _labelled_before(ledger, left):
            counts_by_status[status] += 1
            left_out -= 1
        rows_in, left_out = rows_in + len(left), left_out + len(left)
        again = await ledger.find_duplicates([(record.key, "") for record in records])
        unique = [record for index, record in enumerate(records) if index not in again]
        known = await ledger.known([record.key for record in unique])
        rows_in, repeated, pending = rows_in + len(records), repeated + len(again), pending + len(unique) - len(known)
        for one in known.values():
            counts_by_status[one.status] += 1
        differ = [record for record in unique if record.key in known and known[record.key].digest != record.digest]
        others += await _changed_keys(ledger, differ) if by_fields else [record.key for record in differ]
    orphans = outcomes - sum(counts_by_status.values())
    text = " + ".join(f"{count:,} {status.value}" for status, count in counts_by_status.items())
    text = f"{rows_in:,} = {text} + {pending:,} pending" + f" + {left_out:,} left out" * (left_out > 0)
    text += f"; {repeated:,} KEYS CAME TWICE" * (repeated > 0)
    text += f"; {orphans:,} more outcomes belong to records that are not in the input" * (orphans > 0)
    text += _describe_changed(others)
    check = Check("rows in", rows_in == sum(counts_by_status.values()) + pending + left_out and not others, f"{text}.")
    counts = {"rows_in": rows_in, "pending": pending, "orphans": orphans}
    return check, counts | ({"left_out": left_out} if left_out else {})


def _split_left_out(batch: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Split the records into those that the run takes, and those that it leaves out."""
    return [record for record in batch if not is_left_out(record)], [record for record in batch if is_left_out(record)]


async def _labelled_before(ledger: Ledger, records: Sequence[Record]) -> list[Status]:
    """Return the status of those records that have an outcome anyway, as from a run with another sample."""
    if not records:
        return []
    known = await ledger.known([record.key for record in records])
    # Compared by content too: the key may be that of a record that the run takes.
    same = [record for record in records if record.key in known and known[record.key].digest == record.digest]
    return [known[record.key].status for record in same]


async def _changed_keys(ledger: Ledger, records: Sequence[Record]) -> list[str]:
    """Return the keys of the records whose outcome has other fields."""
    before = await ledger.outcomes_of([record.key for record in records])
    return [
        record.key
        for record in records
        if codec.canonical(record.fields) != codec.canonical(before[record.key].record.fields)
    ]


def _describe_changed(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    names = ", ".join(keys[:5]) + " ..." * (len(keys) > 5)
    return (
        f"; {len(keys):,} ARE DIFFERENT NOW from when they were labeled ({names}): the input has changed since. Give "
        "the run's command again, which compares them"
    )
