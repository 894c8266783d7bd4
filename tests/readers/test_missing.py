"""A file that is not there is answered with where it was looked for, and with what is like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import Settings, check
from pipeline.errors import MissingInputError
from pipeline.readers import Query, resolve_sources

#: What is written, and what the message ends with.
WRITTEN = {
    "data/reviws.csv": "data/reviws.csv). Did you mean 'data/reviews.csv'?",
    "reviews.csv": "reviews.csv).",
    "dta/reviews.csv": "There is no folder {here}/dta. Did you mean '{here}/data'?",
    "sqlite:///data/shop.d": "Did you mean 'sqlite:///data/shop.db'?",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_what_is_like_it_is_named(written: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("reviews.csv", "shop.db"):
        (tmp_path / "data" / name).touch()
    asked = {"query": Query("SELECT 1", None)} if written.startswith("sqlite") else {}
    with pytest.raises(MissingInputError) as raised:
        resolve_sources(written, base=tmp_path, **asked)
    assert str(raised.value).endswith(WRITTEN[written].format(here=tmp_path))
    assert f"looked for at {tmp_path}/" in str(raised.value)


def test_beside_the_config_is_looked_for_too(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(
        "[input]\npath = 'r.csv'\n[task]\nprompt = 'x'\nlabels = { a = ['b', 'c'] }\n[model]\nname = 'm'\n"
    )
    (found,) = [one for one in check(Settings.load(config), online=False) if one.name == "input"]
    assert found.detail.endswith(f"It is not beside the config either ({tmp_path}).")


def test_a_link_that_leads_nowhere_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "dead.csv").symlink_to("gone.csv")
    with pytest.raises(MissingInputError) as caught:
        resolve_sources("dead.csv", base=tmp_path)
    assert "Did you mean" not in str(caught.value)
