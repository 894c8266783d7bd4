"""A callback that writes into SQLite, each record exactly once. `config/into-database.toml` runs it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.recipes import once, prepare

DATABASE = Path(os.environ.get("REVIEWS_DB", "runs/reviews.db"))
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["positive", "negative", "neutral"]}},
    "required": ["label"],
    "additionalProperties": False,
}


class SaveReview:
    """Set what the writer of the review feels."""

    name = "set_label"
    schema = SCHEMA
    extra_columns = ("review_row",)

    def __call__(self, label, record, call):
        # `with connection` is the transaction: the review and the call's key are written together, or neither is.
        with closing(connected()) as connection, connection:
            return once(connection, call, lambda: save(connection, label, record))


def save(connection, label, record):
    """Write one review. What it gives back becomes a column, and is given back again if the call comes again."""
    done = connection.execute(
        "INSERT INTO reviews (id, text, label) VALUES (?, ?, ?)",
        (record.key, record.fields["text"], label["label"]),
    )
    return {"review_row": done.lastrowid}


def connected():
    """A connection of this thread's own: a plain callback is called in several threads at a time."""
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(DATABASE, timeout=60)
    # `id` is not unique here on purpose, so that the example proves what it says.
    connection.execute("CREATE TABLE IF NOT EXISTS reviews (id TEXT NOT NULL, text TEXT, label TEXT NOT NULL)")
    prepare(connection)
    return connection
