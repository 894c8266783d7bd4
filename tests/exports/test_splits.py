"""The splits of an export: shares, classes, groups, near-duplicates, gold, and that no record ever moves."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from export_samples import NAMES, exported, labelled, made, read, texts, where
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import InputError, SetupError
from pipeline.exports.splits import Shares, SplitRecord, Splits


def test_the_shares_are_met_in_each_class(tickets: Path, tmp_path: Path) -> None:
    done = exported(tickets, tmp_path / "data")
    assert done.records == {"train": 320, "val": 40, "test": 40}
    assert done.classes == {
        "bill": {"train": 160, "val": 20, "test": 20},
        "login": {"train": 120, "val": 15, "test": 15},
        "other": {"train": 40, "val": 5, "test": 5},
    }
    found = read(tmp_path / "data")
    assert {name: len(rows) for name, rows in found.items()} == done.records
    assert len({row["id"] for rows in found.values() for row in rows}) == 400
    assert {name: dict(Counter(row["label"] for row in found[name])) for name in NAMES} == {
        name: {label: counts[name] for label, counts in done.classes.items()} for name in NAMES
    }


def test_two_shares_are_train_and_test(tickets: Path, tmp_path: Path) -> None:
    assert exported(tickets, tmp_path, split=(90, 10)).records == {"train": 360, "test": 40}
    assert sorted(path.stem for path in tmp_path.glob("*.csv")) == ["test", "train"]


@pytest.mark.parametrize("split", [(80, 10), (80, 20, 0), (100,), (120, -10, -10), (25, 25, 25, 25), ()])
def test_shares_that_cannot_be(split: tuple[int, ...], tickets: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^--split: got "):
        exported(tickets, tmp_path / "data", split=split)
    assert not (tmp_path / "data").exists()


def test_the_seed_decides(tickets: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        exported(tickets, tmp_path / name, seed=seed, near_duplicates=None)
    assert where(tmp_path / "a") == where(tmp_path / "b") != where(tmp_path / "c")


def test_a_record_added_later_moves_no_other(tmp_path: Path) -> None:
    """To the same folder, to another one, and by another form of the rows: the run remembers its splits."""
    outcomes = [
        labelled(at, {"id": f"r{at:05}", "text": text}, "ab"[at % 2]) for at, text in enumerate(texts(range(90)))
    ]
    run = made(tmp_path / "run", outcomes[::3])
    exported(run, tmp_path / "data")
    before = where(tmp_path / "data")
    for some in (outcomes[::2], outcomes):
        run = made(tmp_path / "run", some)
        for folder in ("data", "other"):
            done = exported(run, tmp_path / folder)
            after = where(tmp_path / folder)
            assert before.items() <= after.items()
            assert done.remembered >= len(before)
        before = after
    # What was rounded for fewer records stays: at most one a class.
    assert all(abs(done.records[name] - share) <= 2 for name, share in zip(NAMES, (72, 9, 9), strict=True))


def test_a_new_run_in_the_same_folder_keeps_the_splits(tmp_path: Path) -> None:
    outcomes = [
        labelled(at, {"id": f"r{at:05}", "text": text}, "ab"[at % 2]) for at, text in enumerate(texts(range(60)))
    ]
    exported(made(tmp_path / "one", outcomes[:40]), tmp_path / "data")
    before = where(tmp_path / "data")
    exported(made(tmp_path / "two", outcomes), tmp_path / "data")
    assert before.items() <= where(tmp_path / "data").items()


def test_a_group_stays_together(tickets: Path, tmp_path: Path) -> None:
    done = exported(tickets, tmp_path, group="customer")
    of = {row["customer"]: name for name, rows in read(tmp_path).items() for row in rows}
    assert all(of[row["customer"]] == name for name, rows in read(tmp_path).items() for row in rows)
    assert (done.groups, done.grouped) == (37, 400)
    assert min(done.records.values()) > 20


def test_records_without_a_group_are_no_group(tmp_path: Path) -> None:
    some = texts(range(40))
    run = made(
        tmp_path / "run", [labelled(at, {"id": at, "text": some[at], "of": [None, ""][at % 2]}) for at in range(40)]
    )
    assert exported(run, tmp_path / "data", group="of").groups == 0


def test_near_duplicates_stand_in_one_split(tmp_path: Path) -> None:
    """Ten of each text, each with another short end."""
    many = [f"{text} and so it goes on, dear Sir or Madam, no {n}" for text in texts(range(30)) for n in range(10)]
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": text}) for at, text in enumerate(many)])
    done = exported(run, tmp_path / "data")
    split = where(tmp_path / "data")
    assert all(len({split[str(start + n)] for n in range(10)}) == 1 for start in range(0, 300, 10))
    assert (done.groups, done.grouped, done.leaks) == (30, 300, 0)
    assert done.records == {"train": 240, "val": 30, "test": 30}
    off = exported(run, tmp_path / "off", near_duplicates="off", split="80/10/10")
    split = where(tmp_path / "off")
    assert off.groups == 0
    assert any(len({split[str(start + n)] for n in range(10)}) > 1 for start in range(0, 300, 10))


def test_a_group_that_no_split_can_hold_is_told(tmp_path: Path) -> None:
    """Texts of one template."""
    many = [f"This is ticket number {n:03}, and somebody should have a look at it, please" for n in range(50)]
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": text}) for at, text in enumerate(many)])
    done = exported(run, tmp_path / "data")
    assert done.records == {"train": 50, "val": 0, "test": 0}
    assert done.notes[-1].startswith("50 records stay together, more than the smallest split is to have")


def test_the_same_text_is_in_one_split_in_any_case(tmp_path: Path) -> None:
    same = [
        "Send it BACK",
        "send  it back ",
        "\tsend it\nback",
        "ｓend it back",
        "\ufeffsend\u200b it ba\u00adck\u200f",
    ]
    more = [*same, *texts(range(36))]
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": text}) for at, text in enumerate(more)])
    done = exported(run, tmp_path / "data", near_duplicates=None)
    assert len({where(tmp_path / "data")[str(at)] for at in range(5)}) == 1
    assert (done.groups, done.grouped) == (1, 5)


def test_a_new_record_that_is_near_two_splits_is_left_out(tmp_path: Path) -> None:
    """It would join records that earlier exports have put into two splits, and these never move."""
    start, end = texts([1, 2])
    left, right = f"{start} {end[:60]}", f"{start[30:]} {end}"
    outcomes = [labelled(at, {"id": at, "text": text}) for at, text in enumerate([left, right, *texts(range(10, 30))])]
    run = made(tmp_path / "run", outcomes)
    for seed in range(30):
        exported(run, tmp_path / f"{seed}", seed=seed)
        split = where(tmp_path / f"{seed}")
        if split["0"] != split["1"]:
            break
    assert split["0"] != split["1"], "no seed takes them apart"
    run = made(tmp_path / "run", [*outcomes, labelled(99, {"id": 99, "text": f"{start} {end}"})])
    done = exported(run, tmp_path / f"{seed}", seed=seed)
    assert where(tmp_path / f"{seed}") == split
    assert done.left_out == {"near_two_splits": 1}


def test_no_gold_record_is_in_train(tickets: Path, tmp_path: Path) -> None:
    """Nor is one that is near it, also where an earlier export had put it there."""
    before = exported(tickets, tmp_path / "data")
    keys = sorted(key for key, split in where(tmp_path / "data").items() if split == "train")[:30]
    gold = tmp_path / "gold.csv"
    gold.write_text("id,label\n" + "".join(f"{key},bill\n" for key in [*keys, "nobody"]), encoding="utf-8")
    done = exported(tickets, tmp_path / "data", gold=gold)
    split = where(tmp_path / "data")
    assert {split[key] for key in keys} == {"test"}
    assert done.gold == 30
    assert done.records == {**before.records, "train": 290, "test": 70}
    fresh = exported(tickets, tmp_path / "fresh", gold=gold, seed=5)
    assert fresh.records == {"train": 320, "val": 40, "test": 40}
    assert {where(tmp_path / "fresh")[key] for key in keys} == {"test"}


def test_gold_of_a_spreadsheet_is_read_as_it_is_said(tickets: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.csv"
    gold.write_text("id;note\n" + "".join(f"r{n:05};größer\n" for n in range(20)), encoding="cp1252")
    with pytest.raises(InputError, match="not UTF-8"):
        exported(tickets, tmp_path / "data", gold=gold)
    assert exported(tickets, tmp_path / "data", gold=gold, sets=["input.encoding=cp1252"]).gold == 20
    words = ["export", str(tickets), "--to", str(tmp_path / "more"), "--gold", str(gold)]
    assert "--set input.encoding=" in CliRunner().invoke(app, words).stderr


def test_a_neighbor_of_gold_is_not_in_train(tmp_path: Path) -> None:
    some = [*texts(range(40)), texts([3])[0] + "!"]
    run = made(tmp_path / "run", [labelled(at, {"id": f"r{at:05}", "text": text}) for at, text in enumerate(some)])
    (tmp_path / "gold.jsonl").write_text('{"key": "r00003"}\n', encoding="utf-8")
    done = exported(run, tmp_path / "data", gold=tmp_path / "gold.jsonl")
    split = where(tmp_path / "data")
    assert (split["r00003"], split["r00040"]) == ("test", "test")
    assert done.notes == ("kept together with gold, so in test: 1 other record",)
    # By its text, where gold has no key of the run.
    (tmp_path / "gold.jsonl").write_text(json.dumps({"text": some[3].upper()}) + "\n", encoding="utf-8")
    assert exported(run, tmp_path / "text", gold=tmp_path / "gold.jsonl", seed=4).gold == 1
    assert where(tmp_path / "text")["r00003"] == "test"


def test_gold_that_is_not_named_again_leaks_nothing(tmp_path: Path) -> None:
    """It stays in test, and the record with its text, which was in train, is left out as before."""
    some = texts(range(60))
    some[:40] = some[:20] * 2
    run = made(tmp_path / "run", [labelled(at, {"id": f"r{at:05}", "text": text}) for at, text in enumerate(some)])
    exported(run, tmp_path / "data")
    key = next(key for key, split in where(tmp_path / "data").items() if split == "train" and key < "r00020")
    (tmp_path / "gold.csv").write_text(f"id\n{key}\n", encoding="utf-8")
    with_gold = exported(run, tmp_path / "data", gold=tmp_path / "gold.csv")
    assert with_gold.left_out == {"near_gold": 1}
    assert exported(run, tmp_path / "data").left_out == {"near_gold": 1}
    assert where(tmp_path / "data")[key] == "test"


def test_a_list_and_a_quantity_are_no_classes(tmp_path: Path) -> None:
    """The first field that has one of few values balances the splits, whatever stands before it."""
    labels = ("tags", "score", "label")
    outcomes = [
        labelled(
            at, {"id": at, "text": text}, {"tags": ["x", "y"][: at % 3], "score": at % 30, "label": "ab"[at % 2] * 50}
        )
        for at, text in enumerate(texts(range(60)))
    ]
    run = made(tmp_path / "run", outcomes, labels=labels)
    manifest = json.loads((run / "manifest.json").read_bytes())
    properties = {"tags": {"type": "array", "items": {"enum": ["x", "y"]}}, "score": {"type": "integer"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": properties}}}
    manifest["fingerprint"]["tools"] = [tool]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert exported(run, tmp_path / "data").by == "label"


def test_rare_classes_are_spread_over_the_splits(tmp_path: Path) -> None:
    """Sixty classes of five records: rounded in each of them, val and test would stay empty."""
    some = texts(range(300))
    run = made(
        tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}, f"class {at % 60:02}") for at in range(300)]
    )
    assert exported(run, tmp_path / "data").records == {"train": 240, "val": 30, "test": 30}


def test_a_field_of_texts_is_no_field_of_classes(tmp_path: Path) -> None:
    some = texts(range(1_100))
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}) for at in range(1_100)])
    with pytest.raises(SetupError, match=r"^--by text: has more than 1,000 values"):
        exported(run, tmp_path / "data", by="text")
    with pytest.raises(SetupError, match=r"^--by: no record has 'lable' \(did you mean 'label'\?\)"):
        exported(run, tmp_path / "data", by="lable")


_RECORDS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("abc"), st.sampled_from([None, b"g1", b"g2", b"g3"])),
    unique_by=lambda one: one[0],
    max_size=60,
)


def split(records: list[tuple[int, str, bytes | None]], former: list[tuple[bytes, bytes, int]]) -> Splits:
    """The splits of records whose texts are the same where their numbers are so modulo 40."""
    splits = Splits(Shares((80, 10, 10), 0, None), 100)
    splits.add([SplitRecord(at, f"k{at}", f"text {at % 40}", group, label, gold=False) for at, label, group in records])
    splits.join()
    splits.remember(former)
    splits.assign()
    return splits


@given(first=_RECORDS, more=_RECORDS)
def test_whatever_is_added_nothing_moves_and_nothing_leaks(
    first: list[tuple[int, str, bytes | None]], more: list[tuple[int, str, bytes | None]]
) -> None:
    before = split(first, [])
    there = {at for at, _, _ in first}
    every = [*first, *(one for one in more if one[0] not in there)]
    after = split(every, list(before.assigned()))
    was, now = before.of(range(100)), after.of(range(100))
    assert set(was) == there
    assert {seq: one[0] for seq, one in was.items()} == {seq: now[seq][0] for seq in was}
    groups = {(group, now[at][0]) for at, _, group in every if group and at in now}
    same = {(at % 40, found[0]) for at, found in now.items()}
    assert len(same) == len({text for text, _ in same})
    assert len(groups) == len({group for group, _ in groups})
    before.close()
    after.close()


def test_the_order_of_the_labels_makes_no_difference(tmp_path: Path) -> None:
    """Two runs over the same records finish them in another order."""
    outcomes = [labelled(at, {"id": at, "text": text}, "ab"[at % 2]) for at, text in enumerate(texts(range(90)))]
    exported(made(tmp_path / "one", outcomes), tmp_path / "a", split=(70, 15, 15))
    exported(made(tmp_path / "two", outcomes[::-1]), tmp_path / "b", split=(70, 15, 15))
    assert where(tmp_path / "a") == where(tmp_path / "b")
