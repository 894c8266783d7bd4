"""The pages as pages: keys, commands and names that are there, links that lead somewhere, lines that fit."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import typing
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_docs import MANUAL, MINIMAL, PAGES, ROOT, blocks, by_name, commands, prose
from test_docs import nothing_set as nothing_set
from typer.testing import CliRunner

from benchmarks.sections import SECTIONS
from pipeline import Settings
from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.settings import keys
from pipeline.settings.suggestions import removed_key_advice

#: GitHub shows so many letters of code without a scroll bar
WIDTH = 96
#: two pages stand beside what they tell of
HERE = [*PAGES, ROOT / "benchmarks" / "README.md", ROOT / "data" / "README.md"]

#: parameters of servers, which labelpipe sends along and does not know
FOREIGN = {"parallel_tool_calls", "require_parameters", "data_collection"}

_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")


def spans(page: Path) -> list[str]:
    """What stands in backticks, without the line breaks."""
    return [" ".join(found.split()) for found in _SPAN.findall(prose(page))]


# -- keys -----------------------------------------------------------------------------------------------------------

KEYS = {key.name: key for key in keys(Settings)}
#: tables whose own keys are the user's, or are those of a list of tables
FREE = tuple(f"{name}." for name in KEYS if re.search(r"\.(parameters|headers|labels|faults|poison|gold)$", name))
LISTED = {"task.tools", "task.validators", "task.examples"}


def is_key(name: str) -> bool:
    """Whether a dotted name is a key, a table of keys, or an entry of a free table."""
    return name in KEYS or name.startswith(FREE) or any(key.startswith(f"{name}.") for key in KEYS)


def test_dotted_names_of_keys_are_keys(subtests: pytest.Subtests) -> None:
    dotted = re.compile(rf"((?:{'|'.join(Settings.model_fields)})(?:\.\w+)+)(?:$| =)")
    for page in PAGES:
        with subtests.test(by_name(page)):
            named = [found[1] for span in spans(page) if (found := dotted.match(span))]
            # What has changed may name the keys of earlier versions.
            removed = {
                name for name in named if page.name == "CHANGELOG.md" and removed_key_advice(tuple(name.split(".")))
            }
            assert [name for name in named if not is_key(name) and name not in removed] == []


def test_tables_of_the_config_are_tables(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(by_name(page)):
            named = [found[1] for span in spans(page) if (found := re.fullmatch(r"\[{1,2}([a-z][\w.]*)\]{1,2}", span))]
            assert [name for name in named if name not in LISTED and not is_key(f"{name}")] == []


def _candidates(name: str) -> list[str]:
    return [name] if name.startswith(FREE) else [key for key in KEYS if f".{key}".endswith(f".{name}")]


def _complaints(name: str, value: Any) -> list[str]:
    """What the settings have against this value of this key."""
    given: Any = value
    for part in reversed(name.split(".")):
        given = {part: given}
    merged = {table: MINIMAL.get(table, {}) | given.get(table, {}) for table in MINIMAL | given}
    if not {"labels", "function", "python", "tools"} & merged["task"].keys():
        merged["task"]["labels"] = {"label": ["yes", "no"]}
    try:
        Settings(**merged)
    except ConfigError as error:
        return [line for line in str(error).splitlines() if f"{name}:" in line]
    return []


@pytest.mark.usefixtures("nothing_set")
def test_values_in_the_text_are_taken(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(by_name(page)):
            for span in spans(page):
                if not re.match(r"[a-z_][\w.]* = [^=]+$", span):
                    continue
                name, _, text = span.partition(" = ")
                if found := _candidates(name):
                    value = tomllib.loads(f"a = {text}")["a"]
                    complaints = [_complaints(key, value) for key in found]
                    assert [] in complaints, f"{page.name}: {span}: {complaints[0]}"
                else:
                    assert name in {"tool", "synchronous", "rows in", *FOREIGN}, f"{page.name}: {span}: no such key"


def test_set_and_variables_name_keys(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(by_name(page)):
            text = page.read_text(encoding="utf-8")
            for name in re.findall(r"--set ([\w.]+)=", text):
                assert is_key(name), f"{page.name}: --set {name}: no such key"
            variables = {key.variable for key in KEYS.values()}
            for name in re.findall(r"LABELPIPE_[A-Z]\w+", text):
                free = any(name.startswith(KEYS[table[:-1]].variable + "__") for table in FREE)
                assert free or name in variables, f"{page.name}: {name}: no such key"


def cells(page: Path) -> list[list[str]]:
    """The rows of every table of a page, heads too."""
    lines = [line for line in prose(page).splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_keys_of_the_readmes_table_are_keys() -> None:
    removed = [row for row in cells(ROOT / "README.md") if re.match(r"`\[[a-z.]+\]`", row[0])]
    assert len(removed) >= 8
    for row in removed:
        tables = re.findall(r"`\[([a-z.]+)\]`", row[0])
        for word in re.findall(r"`([a-z_]+)`", row[-1]):
            assert any(is_key(f"{table}.{word}") for table in tables), f"{row[0]}: {word}: no such key"


# -- commands -------------------------------------------------------------------------------------------------------


def _command(words: list[str]) -> tuple[str, list[str]] | None:
    """The command that words begin with, and the rest of them."""
    for length in (2, 1):
        if " ".join(words[:length]) in commands() and words[:length]:
            return " ".join(words[:length]), words[length:]
    return None


def test_commands_in_the_text_exist(subtests: pytest.Subtests) -> None:
    for page in [*MANUAL, ROOT / "CHANGELOG.md"]:
        with subtests.test(by_name(page)):
            for span in spans(page):
                if span.startswith("labelpipe ") and "[" not in span:
                    words = shlex.split(span)[1:]
                    is_asked = set(words) <= {"-h", "--help", "--version"}
                    assert _command(words) or is_asked, f"{page.name}: {span}: no such command"
                words = span.removeprefix("labelpipe ").split()
                if found := _command(words):
                    given = {word.partition("=")[0] for word in found[1] if re.match(r"--?[a-z]", word)}
                    assert given <= set(commands()[found[0]]), f"{page.name}: {span}: no such option"


def test_targets_of_make_and_benchmarks_exist(subtests: pytest.Subtests) -> None:
    for page in HERE:
        with subtests.test(by_name(page)):
            text = page.read_text(encoding="utf-8")
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert set(re.findall(r"(?:`|^|\$ )make ([a-z]+)", text, re.MULTILINE)) <= set(targets)
            assert set(re.findall(r"-m benchmarks ([a-z]+)", text)) <= set(SECTIONS)


def test_the_figures_name_their_section() -> None:
    last = [row[-1] for row in cells(ROOT / "benchmarks" / "README.md") if re.fullmatch(r"`[a-z -]+`", row[-1])]
    named = [cell.strip("`").removeprefix("python -m benchmarks ").split() for cell in last]
    sections = [words[0] for words in named if words[0] in SECTIONS]
    assert len(sections) >= 20
    assert [words for words in named if words[0] not in SECTIONS or not set(words[1:]) <= {"--full"}] == []


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for page in PAGES:
        named = re.findall(r"labelpipe\[([\w,]+)\]", page.read_text(encoding="utf-8"))
        assert {word for name in named for word in name.split(",")} <= set(extras), page.name


# -- Python ---------------------------------------------------------------------------------------------------------


def test_python_has_no_name_that_is_nowhere(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("python", PAGES)):
        (tmp_path / f"{block.page.stem.replace('-', '_')}_{number}.py").write_text(block.text, "utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F", "--quiet", "."]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def _ours(tree: ast.Module) -> dict[str, Any]:
    """The names that a block imports from the package."""
    return {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline")
        for alias in node.names
    }


def _made(node: ast.expr, ours: dict[str, Any]) -> Any:
    """What a call gives, by its annotation; checks that the call's arguments are taken."""
    called = _value(node.func, ours) if isinstance(node, ast.Call) else None
    if called is None or not isinstance(node, ast.Call):
        return None
    names = {word.arg: None for word in node.keywords if word.arg}
    inspect.signature(called).bind(*node.args, **names)
    made = called if isinstance(called, type) else typing.get_type_hints(called).get("return")
    return made if isinstance(made, type) else None


def _attributes(owner: Any) -> set[str]:
    """What it has, and what its methods give to `self`."""
    given = re.findall(r"\bself\.(\w+)", inspect.getsource(owner)) if isinstance(owner, type) else []
    return {*dir(owner), *getattr(owner, "__annotations__", ()), *given}


def _value(node: ast.expr, ours: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return ours.get(node.id)
    if isinstance(node, ast.Attribute) and (owner := _value(node.value, ours)) is not None:
        assert node.attr in _attributes(owner), f"{getattr(owner, '__name__', owner)} has no {node.attr}"
        return getattr(owner, node.attr, None) if callable(getattr(owner, node.attr, None)) else None
    return None


def test_python_asks_for_what_the_package_has(subtests: pytest.Subtests) -> None:
    """Attributes and arguments of what was imported, or was given by a call of it."""
    for _, block, place in blocks("python", PAGES):
        with subtests.test(place):
            tree = ast.parse(block)
            known = _ours(tree)
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    known[node.targets[0].id] = _made(node.value, known)
                if isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
                    known[node.optional_vars.id] = _made(node.context_expr, known)
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute):
                    _value(node, known)
                if isinstance(node, ast.Call):
                    _made(node, known)


# -- whole configs ----------------------------------------------------------------------------------------------------

WHOLE = [one for one in blocks("toml", PAGES) if {"input", "task", "model"} <= tomllib.loads(one.text).keys()]


@pytest.mark.usefixtures("nothing_set")
def test_check_takes_the_configs_that_are_whole(subtests: pytest.Subtests) -> None:
    shutil.copytree(ROOT / "data", "data")
    for _, block, place in WHOLE:
        with subtests.test(place):
            Path("a.toml").write_text(block, encoding="utf-8")
            found = CliRunner().invoke(app, ["check", "a.toml", "--offline"])
            assert found.exit_code == 0, found.output


def test_there_are_whole_configs() -> None:
    assert {"README.md", "config.md"} <= {one.page.name for one in WHOLE}


# -- links ----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings as GitHub makes them; the second of a name gets -1."""
    seen: Counter[str] = Counter()
    found = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title.lower())
        anchor = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def _kept() -> set[Path]:
    """The files that git keeps, and their folders; all there are where this is no clone."""
    if not (ROOT / ".git").exists():
        return {*ROOT.rglob("*")}
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    files = {ROOT / name for name in listed.stdout.decode().split("\0") if name}
    return files | {folder for path in files for folder in path.parents}


def test_links_lead_to_headings_and_files_that_are_kept(subtests: pytest.Subtests) -> None:
    """Links that are broken over two lines too, and those whose words have brackets."""
    kept = _kept()
    for page in HERE:
        with subtests.test(by_name(page)):
            text = prose(page)
            found = _LINK.findall(text)
            assert len(found) == text.count("]("), f"{page.name}: a link that cannot be read"
            for _words, link in found:
                path, _, anchor = link.partition("#")
                if not re.match(r"[a-z]+:", link):
                    target = (page.parent / path).resolve() if path else page
                    assert target in kept, f"{page.name}: {link}: no such file in the repository"
                    assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


# -- layout -----------------------------------------------------------------------------------------------------------


def test_headings_are_in_order(subtests: pytest.Subtests) -> None:
    for page in HERE:
        with subtests.test(by_name(page)):
            levels = [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]
            assert levels.count(1) == 1
            assert levels[0] == 1
            assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []


def test_code_fits_the_page(subtests: pytest.Subtests) -> None:
    for page in HERE:
        with subtests.test(by_name(page)):
            text = page.read_text(encoding="utf-8")
            code = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
            assert text.count("```") % 2 == 0
            assert [line for line in code.splitlines() if len(line) > WIDTH] == []


def test_rows_have_the_cells_of_their_head(subtests: pytest.Subtests) -> None:
    for page in HERE:
        with subtests.test(by_name(page)):
            for table in _tables(prose(page)):
                counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
                assert len(counts) == 1, f"{page.name}: {table[0]}"


def _tables(text: str) -> Iterator[list[str]]:
    for part in re.split(r"\n\s*\n", text):
        if (lines := part.strip().splitlines()) and lines[0].startswith("|"):
            yield lines
