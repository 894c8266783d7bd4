"""The pages say what the code does. docs/config.md has a test of its own (tests/settings/test_settings_docs.py)."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from test_house import FLOORS, imports, tree_of

import pipeline
from pipeline import Settings, Status, errors
from pipeline.cli import EXIT_CODES, app
from pipeline.engine import Verdict, verdict_of
from pipeline.errors import LabelpipeError
from pipeline.labelfields import LabelField, plain_choices
from pipeline.rehearsal import BATCH_FAULTS, FAULT_KINDS
from pipeline.runner import summary as endings
from pipeline.settings import label_field
from pipeline.store import RunDir
from pipeline.task import TaskOptions, ToolOptions, build_task

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
#: where commands, options and codes are looked for
MANUAL = [page for page in PAGES if page.parent == DOCS or page.name == "README.md"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_CODED = re.compile(r"`([^`]+)`")


def text_of(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def by_name(page: Path) -> str:
    """README.md is the name of three."""
    return page.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A block of code on a page; `place` is the page's name and the number of the block."""

    page: Path
    text: str
    place: str


def blocks(language: str, pages: list[Path]) -> list[Block]:
    """The code blocks in a language."""
    return [
        Block(page, found[2], f"{page.name}-{number}")
        for page in pages
        for number, found in enumerate(_FENCE.finditer(page.read_text(encoding="utf-8")))
        if found[1] == language
    ]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without the heads."""
    part = re.split(rf"^#+ {re.escape(heading)}$", text_of(page), flags=re.MULTILINE)[1]
    lines = re.split(r"^#+ ", part, flags=re.MULTILINE)[0].splitlines()
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("|---")}
    kept = [line for number, line in enumerate(lines) if line.startswith("| ") and number not in heads]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in kept]


def first_words(page: str, heading: str) -> list[str]:
    """What stands in backticks in the first cells of a section's tables."""
    return [word for row in rows(page, heading) for word in _CODED.findall(row[0])]


# -- commands -------------------------------------------------------------------------------------------------------


@cache
def commands() -> dict[str, dict[str, bool]]:
    """Each command with its options, and whether these take a value."""
    found: dict[str, dict[str, bool]] = {}
    root: Any = typer.main.get_command(app)

    def visit(command: Any, path: str) -> None:
        found[path] = {
            word: not param.is_flag for param in command.params for word in param.opts if word.startswith("-")
        }
        for name, below in getattr(command, "commands", {}).items():
            visit(below, f"{path} {name}".strip())

    visit(root, "")
    return found


def test_every_command_and_option_is_documented(subtests: pytest.Subtests) -> None:
    manual = "\n".join(page.read_text(encoding="utf-8") for page in MANUAL)
    named = {*re.findall(r"(?<![\w-])--?[a-z][\w-]*", manual)}
    for command in sorted(commands()):
        with subtests.test(command):
            assert re.search(rf"labelpipe {command}\b" if command else "labelpipe", manual)
            assert commands()[command].keys() - {"--help", "--version"} <= named


def test_options_that_are_named_exist(subtests: pytest.Subtests) -> None:
    for page in [page for page in MANUAL if page.name != "README.md"]:
        with subtests.test(by_name(page)):
            known = {option for options in commands().values() for option in options}
            # A line of another program has options of its own.
            others = ("systemd-run ", "vllm serve ")
            lines = [line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith(others)]
            named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(lines)))
            assert named <= known | {"--api-key", "--max-model-len", "--jinja", "--ctx-size", "--parallel"}, (
                "of other servers"
            )


def _called(block: str) -> Iterator[list[str]]:
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["labelpipe"]:
            yield words[1:]


def test_examples_of_commands_exist(subtests: pytest.Subtests) -> None:
    for page, block, place in blocks("sh", PAGES):
        with subtests.test(place):
            for words in _called(block):
                named = [" ".join(words[:length]) for length in (2, 1) if " ".join(words[:length]) in commands()]
                assert named, f"{page.name}: labelpipe {' '.join(words)}: no such command"
                options = commands()[named[0]]
                given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
                assert set(given) <= set(options), f"{page.name}: labelpipe {' '.join(words)}: no such option"


def test_examples_name_configs_that_are_here_or_are_made(subtests: pytest.Subtests) -> None:
    for page, block, place in blocks("sh", PAGES):
        with subtests.test(place):
            for words in _called(block):
                for word in words:
                    if word.startswith("config/") and word != "config/reviews.toml":
                        assert (ROOT / word).exists(), f"{page.name}: {word} is not here"


# -- codes ----------------------------------------------------------------------------------------------------------


@cache
def _modules_in_use() -> dict[str, ast.Module]:
    """Every module that the program can come to, from `python -m pipeline` on, lazy imports too."""
    found: dict[str, ast.Module] = {}
    left = ["pipeline.__main__"]
    while left:
        name = left.pop()
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in found or not path.exists():
            continue
        found[name] = tree_of(path)
        for module, below, _line in imports(path):
            left += [module, f"{module}.{below}"] if below and module.split(".")[0] == "pipeline" else []
    return found


def _error_classes() -> dict[str, type[LabelpipeError]]:
    """Every error of the program, by name."""
    found: dict[str, type[LabelpipeError]] = {}
    for module in _modules_in_use():
        made = vars(importlib.import_module(module)).values() if not module.endswith("__main__") else ()
        kinds = [one for one in made if isinstance(one, type) and issubclass(one, LabelpipeError)]
        found |= {one.__name__: one for one in kinds}
    return found


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _calls_of_names() -> Iterator[tuple[str, ast.Call]]:
    for tree in _modules_in_use().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def _invalid_codes() -> set[str]:
    """The codes that an InvalidAnswerError is given; it has none of its own."""
    words = [word for name, call in _calls_of_names() if name == "InvalidAnswerError" for word in call.keywords]
    given = {_literal(word.value) for word in words if word.arg == "code"}
    return {errors.InvalidAnswerError().code} | {code for code in given if code}


def _codes_in_use() -> set[str]:
    """The codes of every error that is made somewhere, and of every problem that is written as a literal."""
    classes, found = _error_classes(), _invalid_codes()
    for name, call in _calls_of_names():
        if name in classes and name != "InvalidAnswerError":
            found.add(classes[name].code)
        if name == "Problem" and (code := _literal(call.args[0])):
            found.add(code)
    return found


def test_every_code_is_documented_and_no_other() -> None:
    sections = ("Records that cannot be asked", "Calls", "Answers", "Runs")
    documented = {word for section in sections for word in first_words("failures.md", section)}
    # The table by HTTP status stands under Calls too; its first cells have no backticks.
    assert documented == _codes_in_use()


def _verdicts() -> set[tuple[str, str]]:
    """(code, verdict) of every error of a call or of an answer that has a verdict."""
    found = set()
    for one in _error_classes().values():
        if not issubclass(one, errors.CallError | errors.AnswerError):
            continue
        codes = _invalid_codes() if one is errors.InvalidAnswerError else {one.code}
        with suppress(KeyError):  # the families themselves have none
            found |= {(code, verdict_of(one()).value) for code in codes}
    return found


def test_the_verdicts_are_those_of_the_table_in_the_code() -> None:
    told = [row for section in ("Calls", "Answers") for row in rows("failures.md", section) if len(row) == 4]
    # A record whose time is up has the verdict of the call that it ended with, and a code of its own. The net's code
    # stands for errors that are not in the tree.
    assert {(row[0].strip("`"), row[2]) for row in told} == _verdicts() | {
        ("record_deadline", "retry"),
        ("internal_error", "reject"),
    }


def test_every_exit_code_is_documented_and_no_other() -> None:
    in_code = {value for name, value in vars(endings).items() if name.startswith("EXIT_")}
    documented = [int(word) for word in first_words("failures.md", "Exit codes") if word.isdecimal()]
    assert sorted(documented) == sorted(in_code)
    assert in_code == {int(number) for number in re.findall(r"(?:^|[:·])\s*(\d+) ", EXIT_CODES)}


def test_errors_that_start_nothing_give_two() -> None:
    classes = _error_classes().values()
    told = {row[0].strip("`"): row[2] for row in rows("failures.md", "Runs")}
    assert {code for code, exit_code in told.items() if exit_code == "2"} == {
        one.code for one in classes if issubclass(one, errors.SetupError | errors.NoLabelError)
    }


def test_each_http_status_has_the_code_that_is_told() -> None:
    import httpx2
    import openai

    from pipeline.providers.faults import translate

    told = [row for row in rows("failures.md", "Calls") if len(row) == 2]
    assert told
    for statuses, code in told:
        for number in re.findall(r"\d{3}", statuses):
            content = b"" if code == "`unavailable`" else b'{"error": {}}'
            request = httpx2.Request("POST", "http://127.0.0.1")
            response = httpx2.Response(int(number), content=content, request=request)
            ours = translate(openai.APIStatusError("refused", response=response, body=None))
            assert ours.code == code.strip("`"), f"{number} is {ours.code}"


def test_every_status_is_documented() -> None:
    words = [row[0] for row in rows("failures.md", "Statuses")]
    assert words == [*(status.value for status in Status), "pending"]


# -- rooms, files, faults, words --------------------------------------------------------------------------------------


def test_every_room_has_its_floor() -> None:
    told = {row[1].strip("`"): int(row[0]) for row in rows("architecture.md", "Layers and packages")}
    assert told == FLOORS


def test_the_architecture_is_read_in_ten_minutes() -> None:
    words = [word for word in text_of("architecture.md").split() if re.search(r"\w", word)]
    assert len(words) <= 2300


def test_modules_that_the_architecture_names_exist() -> None:
    named = [word for word in _CODED.findall(prose(DOCS / "architecture.md")) if re.fullmatch(r"[a-z]+/\w+", word)]
    places = [ROOT / "pipeline" / word for word in named]
    assert named
    assert [path.name for path in places if not path.is_dir() and not path.with_suffix(".py").exists()] == []


#: constant -> what docs/limits.md says of it, and by how much the value is multiplied there
NUMBERS = {
    "limits.gate.PROBE_FIRST_S": ("starts at {} s", 1),
    "limits.gate.ALONE_S": ("silent for {} s", 1),
    "limits.gate.WARM_UP_S": ("it has {} s", 1),
    "limits.gate.EVIDENCE": ("{} different records in a row", 1),
    "limits.gate.BLAME_ANSWERS": ("at least 1 and at most {}", 1),
    "limits.meters.HEADROOM": ("{} % of the limit", 100),
    "units.MINUTE_RESET_S": ("{} s away", 1),
    "limits.pace.NOISE_COUNT": ("at least {} of the latest calls", 1),
    "limits.pace.NOISE_SHARE": ("clearly more than {} % of them", 100),
    "limits.pace.CUT_TO": ("{} % of what passes", 100),
    "limits.backoff.BLIND_WAIT_S": ("the wait is {} s and doubles", 1),
    "limits.backoff.BLIND_WAIT_MAX_S": ("in a row, up to {} s", 1),
    "limits.backoff.HEARD_S": ("at most {} minutes at a time", 1 / 60),
}


def test_the_numbers_of_the_limits_are_those_of_the_code(subtests: pytest.Subtests) -> None:
    page = " ".join(text_of("limits.md").split())
    for constant, (words, times) in NUMBERS.items():
        with subtests.test(constant):
            module, _, name = constant.rpartition(".")
            value = getattr(importlib.import_module(f"pipeline.{module}"), name)
            assert words.format(f"{value * times:g}") in page


def test_every_fault_kind_is_documented_and_no_other() -> None:
    assert first_words("rehearsal.md", "Faults") == list(FAULT_KINDS)
    assert first_words("rehearsal.md", "Batches") == list(BATCH_FAULTS)


def test_the_files_of_a_run_are_documented() -> None:
    folder = RunDir(Path("run"))
    paths = [
        folder.ledger,
        folder.failed,
        folder.manifest,
        folder.summary,
        folder.log,
        folder.report,
        folder.throughput,
    ]
    paths += [folder.labels(kind) for kind in ("csv", "jsonl", "parquet")]
    assert {path.name for path in paths} <= set(first_words("inputs-and-outputs.md", "The run folder"))


def test_the_words_of_the_code_are_in_the_glossary() -> None:
    words = [row[0] for row in rows("glossary.md", "Glossary")]
    assert words == sorted(words, key=str.lower)
    names = [*(status.value for status in Status), *(verdict.value for verdict in Verdict)]
    assert {name.replace("cool down", "cool-down") for name in names} <= set(words) | {"retry"}


def test_every_promise_names_its_proof() -> None:
    parts = re.split(r"^### ", text_of("durability.md"), flags=re.MULTILINE)[1:]
    proofs = [re.findall(r"`(tests/[\w/]+\.py)`", part.partition("Proven by:")[2]) for part in parts]
    assert [number for number, named in enumerate(proofs, 1) if not named] == []


def test_the_changelog_has_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert next(name for name in versions if name != "Unreleased") == pipeline.__version__


# -- links ----------------------------------------------------------------------------------------------------------


def test_files_that_are_named_are_here(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(by_name(page)):
            for word in _CODED.findall(prose(page)):
                if re.fullmatch(r"(tests|pipeline|benchmarks)/[\w./]*", word):
                    assert (ROOT / word).exists(), f"{page.name}: {word} is not here"


def test_every_page_is_linked_from_another() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in _LINK.findall(prose(page))}
    assert [page.name for page in DOCS.glob("*.md") if page.resolve() not in linked] == []


# -- blocks of code ---------------------------------------------------------------------------------------------------

MINIMAL: dict[str, dict[str, Any]] = {
    "input": {"path": "data/reviews.jsonl"},
    "task": {"prompt": "Label this text: {{ text }}"},
    "model": {"name": "gpt-6-luna"},
}


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    """A fragment with what a config needs at least."""
    merged = {name: MINIMAL.get(name, {}) | given.get(name, {}) for name in MINIMAL | given}
    if not {"labels", "function", "python", "tools"} & merged["task"].keys():
        merged["task"]["labels"] = {"label": ["yes", "no"]}
    return merged


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env here, and no variable of ours."""
    import os

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("LABELPIPE_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nothing_set")
def test_configs_are_valid(subtests: pytest.Subtests) -> None:
    """Whole ones as they stand, fragments with what is missing."""
    for _, block, place in blocks("toml", [page for page in PAGES if page.name != "config.md"]):
        with subtests.test(place):
            given = tomllib.loads(block)
            settings = Settings(**(_completed(given) if block.startswith("# fragment\n") else given))
            task = settings.task
            if not (task.python or task.callback or any(rule.python for rule in task.validators)):
                build_task(_options(settings, Path()))


def _options(settings: Settings, base: Path) -> TaskOptions:
    from pipeline.task import ValidatorOptions

    task, function = settings.task, settings.task.function
    made = None
    if function is not None:
        schema = settings.json_schema(function.parameters, ("task", "function", "parameters"))
        made = ToolOptions(function.name, schema, function.description)
    return TaskOptions(
        model=settings.model.name,
        prompt=task.prompt,
        labels=None if task.labels is None else {name: _field(form) for name, form in task.labels.items()},
        function=made,
        python=task.python,
        tools=task.tools and [ToolOptions(**one.model_dump()) for one in task.tools],
        call=task.call,
        rows=task.rows,
        max_turns=task.max_turns,
        reply=task.reply,
        validators=[ValidatorOptions(**one.model_dump()) for one in task.validators],
        base=base,
    )


def _field(form: Any) -> LabelField:
    """What a form of [task.labels] says, with a label in place of those of a file."""
    field = label_field(form)
    return field if field.file is None else replace(field, choices=plain_choices(["a"]))


def test_python_compiles_and_imports_what_is_there(subtests: pytest.Subtests) -> None:
    for page, block, place in blocks("python", PAGES):
        with subtests.test(place):
            tree = ast.parse(block)
            compile(tree, page.name, "exec")
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
                    module = importlib.import_module(node.module or "")
                    for alias in node.names:
                        assert hasattr(module, alias.name), f"{page.name}: {node.module} has no {alias.name}"


@pytest.mark.usefixtures("nothing_set")
def test_the_tools_of_the_page_work(subtests: pytest.Subtests, tmp_path: Path) -> None:
    """Each tool that docs/tasks.md names is made from the block that has its file's name."""
    for reference in re.findall(r'^python = "(.+)"$', text_of("tasks.md"), re.MULTILINE):
        with subtests.test(reference):
            for found in _FENCE.finditer(text_of("tasks.md")):
                if found[1] == "python" and (name := re.match(r"# (\w+\.py)\n", found[2])):
                    (tmp_path / name[1]).write_text(found[2], encoding="utf-8")
            settings = Settings(**_completed({"task": {"python": reference}}))
            assert build_task(_options(settings, tmp_path)).columns
