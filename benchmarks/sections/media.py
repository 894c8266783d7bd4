"""Photos of 4 MB, 200 in flight: what they take in memory, and how many a minute go out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import CONCURRENCY, Bench
from benchmarks.process import ROOT, Child, Cost
from benchmarks.tables import Row, Section, at_least, at_most, exactly
from benchmarks.truth import LABELS, text_of

TARGET_MB = 1_500.0
PHOTO_BYTES, SIZE = 4_000_000, (4_000, 3_000)
LATENCY_S = 2.0
FEW = 600
#: name -> [task.media]: the worst case, the one of a default config, and the smallest
WAYS: Mapping[str, Mapping[str, Any]] = {
    "as they are": {"detail": "original", "memory_mb": 1_024},
    "as they are, 512 MB": {"detail": "original"},
    "scaled to high (default)": {},
    "scaled to low": {"detail": "low"},
}


def media(bench: Bench, full: bool) -> Section:
    """Each way once, over the same photos."""
    most_records, photos = (10_000, 50) if full else (FEW, 8)
    folder = _photos(bench.folder / "photos", photos)
    rows: list[Row] = []
    figures: dict[str, Any] = {"records": most_records}
    for way, table in WAYS.items():
        # Scaling takes its time in CPU, and none of the memory depends on how many there are.
        records = most_records if table.get("detail") == "original" else FEW
        cost, books, labelled = _run(bench, folder, way, table, records)
        a_minute = records / cost.wall_s * 60
        sent_mb = books["bytes"] / 1e6
        rows += [
            at_most(f"{way}: peak resident set", cost.peak_mb, TARGET_MB, "{:,.0f} MB"),
            exactly(f"{way}: labelled", labelled, records),
            Row(f"{way}: records a minute", f"{a_minute:,.0f}"),
            Row(f"{way}: sent", f"{sent_mb / cost.wall_s:,.0f} MB/s, {books['most_in_flight']} in flight at once"),
            Row(f"{way}: CPU a record", f"{cost.cpu_s / records * 1000:.0f} ms"),
        ]
        figures[way] = {
            "peak_mb": cost.peak_mb, "wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "sent_mb": sent_mb, **books
        }  # fmt: skip
    most = max(figures[way]["most_in_flight"] for way in WAYS)
    rows.append(at_least("in flight at once, where memory allows", most, 0.95 * CONCURRENCY, "{:.0f}"))
    return Section(
        f"media: {most_records:,} records with a photo of {PHOTO_BYTES / 1e6:.0f} MB, 12 megapixels", rows, figures
    )


def _photos(folder: Path, count: int) -> list[Path]:
    """Distinct photos of about the size that is meant."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    quality = 0
    for path in paths:
        grain = Image.effect_noise((SIZE[0] // 2, SIZE[1] // 2), 60).resize(SIZE, Image.Resampling.BICUBIC)
        image = Image.merge("RGB", (grain, grain.rotate(180), grain))
        quality = quality or _quality(image)
        image.save(path, "JPEG", quality=quality)
    return paths


def _quality(image: Any) -> int:
    """The quality that gives the size."""
    for quality in range(20, 96, 3):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() >= PHOTO_BYTES:
            return quality
    return 95


def _run(
    bench: Bench, photos: list[Path], way: str, table: Mapping[str, Any], records: int
) -> tuple[Cost, dict[str, int], int]:
    name = "media-" + "".join(letter if letter.isalnum() else "-" for letter in way)
    source, out = bench.folder / f"{name}.jsonl", bench.folder / f"run-{name}"
    with source.open("w", encoding="utf-8") as file:
        for number in range(records):
            photo = f"photos/{photos[number % len(photos)].name}"
            file.write(json.dumps({"id": f"r{number}", "text": text_of(number), "photo": photo}) + "\n")
    with _sink() as url:
        config = bench.folder / f"{name}.toml"
        config.write_text(_config(source, out, url, table), encoding="utf-8")
        cost = Child(["-m", "pipeline", "run", config], bench.folder / f"{name}.log").wait().checked(0)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/books") as response:
            books: dict[str, int] = json.loads(response.read())
    labelled = (out / "labels.csv").read_text(encoding="utf-8-sig").count("\n") - 1
    return cost, books, labelled


@contextmanager
def _sink() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink", str(LATENCY_S)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def _config(source: Path, out: Path, url: str, table: Mapping[str, Any]) -> str:
    shown = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
    return f"""
[input]
path = {json.dumps(str(source))}
key = "id"
[task]
prompt = "{{{{ text }}}} {{{{ image(photo) }}}}"
[task.labels]
label = {json.dumps(list(LABELS))}
[task.media]
{shown}
[model]
name = "gpt-6-luna"
base_url = "{url}/v1"
[limits]
concurrency = {CONCURRENCY}
[output]
dir = {json.dumps(str(out))}
columns = ["id"]
"""
