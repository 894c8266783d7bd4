"""Reads and writes the certificates of a run's labels, and checks whether the labels are still the same.

Everything here reads the disk: call it in a thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import SetupError
from pipeline.labelfields import renamer
from pipeline.records import JSON
from pipeline.store.queries import last_seq
from pipeline.store.renaming import renames_of
from pipeline.store.rows import unbound
from pipeline.store.rundir import RunDir, write_whole
from pipeline.store.schema import connect_reader

#: The columns that show how certain a label is, in this order: the share of votes that agree, and the model's own
#: number. A higher number means more certain.
CERTAINTY = ("agreement", "confidence")
#: Why a certificate no longer counts, according to the ledger.
VOID = "labels that it is about have changed since"
#: The prefix of its files' names.
NAME = "certificate"
_SELECT = "SELECT key, digest, request_digest, label FROM outcomes WHERE status = 'labelled' AND seq <= ? ORDER BY seq"


@dataclass(slots=True)
class ColumnLabel:
    """One record's label in one column. It is not frozen only because a million may be made.

    `certainty` is the numbers in the columns that show how certain it is, None if a number is missing. `record` and
    `request` are the digests of the record's content and request.
    """

    key: str
    value: JSON
    certainty: tuple[float | None, ...]
    record: int
    request: bytes | None


@dataclass(slots=True)
class LabelDigest:
    """The counts of `read_column`: labels in the column, records without one, and a digest of the labels.

    The digest covers key, label, and certainty, and does not depend on the order. `added` counts labels after the last
    seq that was requested.
    """

    n: int = 0
    without: int = 0
    added: int = 0
    last_seq: int = 0
    _sum: int = 0

    @property
    def digest(self) -> str:
        """32 hex digits that are equal for equal labels."""
        return f"{self._sum:032x}"

    def add(self, one: ColumnLabel) -> None:
        self.n += 1
        hashed = codec.digest128(codec.canonical([one.key, one.value, one.certainty]))
        self._sum = (self._sum + int.from_bytes(hashed, "big")) % 2**128


def read_column(
    ledger: Path,
    column: str,
    scores: Sequence[str] = CERTAINTY,
    upto: int | None = None,
    digest: LabelDigest | None = None,
) -> Iterator[ColumnLabel]:
    """Yield the model's labels in this column in the order of commits, up to a seq or all of them. Raises SetupError.

    `scores` are the columns that show how certain the labels are. `digest` is updated on the way, which takes a third
    of the time. Corrections do not count, because the ledger holds the model's answers.
    """
    with closing(connect_reader(ledger)) as connection:
        last = last_seq(connection) if upto is None else upto
        without = 0
        for key, record, request, text in connection.execute(_SELECT, (last,)):
            label = _label(text)
            if label is None or column not in label:
                without += 1
                continue
            one = ColumnLabel(unbound(key), label[column], tuple(map(_number, map(label.get, scores))), record, request)
            if digest is not None:
                digest.add(one)
            yield one
        if digest is not None:
            others = "SELECT TOTAL(status <> 'labelled'), TOTAL(status = 'labelled' AND seq > ?) FROM outcomes"
            unlabelled, added = connection.execute(others, (last,)).fetchone()
            digest.last_seq, digest.without, digest.added = last, without + int(unlabelled), int(added)


def labels_match(digest: str, folder: Path, column: str, scores: Sequence[str], upto: int) -> bool:
    """Whether the labels of a run have this digest, or had it before they were renamed. Raises SetupError.

    A rename that merges labels cannot be undone, so it changes the digest.
    """
    renames = [one for one in renames_of(RunDir(folder).read_manifest()) if one.column == column]
    for undone in range(len(renames) + 1):
        last = renames[len(renames) - undone :]
        before = [renamer([(new, old) for old, new in one.pairs]) for one in reversed(last)]
        digest_now = LabelDigest()
        for one in read_column(RunDir(folder).ledger, column, scores, upto):
            for change in before:
                one.value = change(one.value)
            digest_now.add(one)
        if digest_now.digest == digest:
            return True
    return False


def _label(text: str | None) -> dict[str, JSON] | None:
    """Return a label of one row; None for several rows, and for a damaged label, which `verify` reports."""
    try:
        # Parse fast: a number with more digits than a float is not a class.
        label = codec.loads(text or "null")
    except (ValueError, TypeError):
        return None
    return label if isinstance(label, dict) else None


def _number(value: JSON) -> float | None:
    return float(value) if codec.is_number(value) else None


# -- the files in the run folder ---------------------------------------------------------------------------------------


def read_certificates(folder: Path) -> list[dict[str, Any]]:
    """Return the run's certificates as written, one for each column. Raises SetupError."""
    certificates = []
    for path in sorted(folder.glob(f"{NAME}*.json"), key=lambda path: (len(path.name), path.name)):
        try:
            value = codec.loads_exact(path.read_bytes().decode())
        except (OSError, ValueError) as error:
            raise SetupError(f"{path}: cannot be read: {error}. Move it away; certify makes it again") from error
        if isinstance(value, dict) and {"column", "certified", "labels", "scores", "last_seq"} <= value.keys():
            certificates.append(value)
    return certificates


def write_certificate(folder: Path, certificate: dict[str, Any]) -> Path:
    """Save a certificate as JSON and its `text` as a text file; return the path of the JSON. Raises StoreError.

    The first certified column has `certificate.json`; other file names contain a digest of the column's name.
    """
    others = [one["column"] for one in read_certificates(folder)]
    is_first = not others or others[0] == certificate["column"]
    name = NAME if is_first else f"{NAME}.{codec.digest128(certificate['column'].encode()).hex()[:8]}"
    path = folder / f"{name}.json"
    write_whole(folder / f"{name}.txt", f"{certificate['text']}\n".encode())
    write_whole(path, codec.pretty(certificate))
    return path


def certificate_of(folder: str | Path, column: str | None = None) -> dict[str, Any] | None:
    """Return the certificate of a run's labels as it is now; None if there is none. Raises SetupError.

    It is the certificate of `column`, or of the first certified column. If its labels have changed since, `certified`
    is false and `void` is the reason. Reads all labels from the disk.
    """
    run_dir = RunDir(Path(folder))
    certificates = [one for one in read_certificates(run_dir.path) if column in (None, one["column"])]
    if not certificates or not certificates[0]["certified"]:
        return certificates[0] if certificates else None
    one = certificates[0]
    if labels_match(one["labels"], run_dir.path, one["column"], one["scores"], one["last_seq"]):
        return one
    return {**one, "certified": False, "state": "void", "void": VOID}
