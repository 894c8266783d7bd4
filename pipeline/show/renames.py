"""What renaming labels came to, for a person."""

from pipeline.labelfields import Renamed
from pipeline.show.words import many


def renamed_lines(found: Renamed) -> list[str]:
    """What has another name now, where, and what is left to be done by hand."""
    names = ", ".join(f"{old} -> {new}" for old, new in found.pairs)
    head = "Would rename" if found.dry_run else "Renamed"
    records = many(found.records, "record")
    lines = [f"{head} labels of {found.column}: {names}", f"  records   {records} of {found.run_dir}"]
    lines += [f"  {'edited' if not found.dry_run else 'edits':<8}  {path}" for path in found.files]
    lines += [f"  note      {note}" for note in found.notes]
    return [*lines, "Nothing was changed." if found.dry_run else "No call was made."]
