"""What the page asks for, and what it gets: JSON about the draw and its records, and the answers that it sends."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.loopback import PageRequest, PageResponse
from pipeline.records import JSON, Outcome
from pipeline.review.page.estimates import answer_groups, describe_scope, estimates
from pipeline.review.page.media import MediaPreview
from pipeline.review.page.reuse import CannotAddError, ReuseFiles, add_example, add_gold, guideline_of
from pipeline.review.page.session import RefusedAnswer, ReviewSession
from pipeline.store import Answer, cell
from pipeline.task import fields_in_prompt
from pipeline.terminal import printable

#: What is shown of one field of a record, in characters: a browser does not lay out much more.
FIELD_CHARS = 1_000_000
#: How much of a record stands in the list of what was learned, in characters.
EXCERPT_CHARS = 200
#: Records in which a text is looked for at once.
CHUNK = 200
_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {
    "review.js": "text/javascript; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: Its own script and style sheet, its own pictures and sounds, and its own questions; nothing else from anywhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
Facts: TypeAlias = dict[str, Any]


class Files(Protocol):
    """What brings answers into the run's files."""

    def note(self) -> None:
        """An answer has come that the files do not have."""

    def told(self) -> dict[str, str]:
        """What became of the files."""


class PageHandlers:
    """Answers what the page of a desk asks. `ended` is set when the person ends the review."""

    def __init__(
        self,
        desk: ReviewSession,
        showing: MediaPreview,
        places: ReuseFiles,
        fingerprint: Mapping[str, Any],
        files: Files,
    ) -> None:
        self._desk = desk
        self._showing = showing
        self._places = places
        self._fingerprint = fingerprint
        self._files = files
        self._main = fields_in_prompt(fingerprint)
        self.ended = asyncio.Event()
        self._routes: dict[tuple[str, str], Callable[[PageRequest], Awaitable[Facts]]] = {
            ("GET", "state"): self._state,
            ("GET", "record"): self._record,
            ("GET", "find"): self._find,
            ("GET", "learned"): self._learned,
            ("GET", "guideline"): self._guideline,
            ("POST", "answer"): self._say,
            ("POST", "undo"): self._undo,
            ("POST", "example"): self._example,
            ("POST", "gold"): self._gold,
            ("POST", "end"): self._end,
        }

    async def answer(self, asked: PageRequest) -> PageResponse:
        """The reply to one request."""
        if asked.method == "GET" and asked.path == "":
            return PageResponse(self._html(), policy=POLICY)
        if asked.method == "GET" and asked.path in _FILES:
            return PageResponse(_file(asked.path), kind=_FILES[asked.path])
        if asked.method == "GET" and asked.path.startswith("media/"):
            return await self._media(asked.path)
        route = self._routes.get((asked.method, asked.path))
        if route is None:
            known = any(path == asked.path for _, path in self._routes)
            return _json({"error": "Not found."}, 405 if known else 404)
        try:
            return _json(await route(asked))
        except (RefusedAnswer, CannotAddError) as error:
            return _json({"error": printable(str(error))}, 422)
        except LabelpipeError as error:
            return _json({"error": printable(str(error))}, 500)

    # -- what there is -----------------------------------------------------------------------------------------------

    def _html(self) -> bytes:
        desk = self._desk
        page = _environment().get_template("review.html").render(
            title=printable(desk.found.run_dir.path.absolute().name), blind=desk.draw.blind, by=printable(desk.by),
            simulated=desk.found.simulated,
        )  # fmt: skip
        return page.encode(errors="replace")

    async def _state(self, _asked: PageRequest) -> Facts:
        desk = self._desk
        await desk.follow_schema()
        await desk.refresh()
        return {
            "run": printable(str(desk.found.run_dir.path)),
            "draw": desk.draw.id,
            "blind": desk.draw.blind,
            "by": printable(desk.by),
            "population": desk.draw.population,
            "meant": printable(describe_scope(desk.draw)),
            "fields": [field.as_dict() for field in desk.fields],
            "items": [self._item(at) for at in range(len(desk.items))],
            **self._now(),
        }

    def _now(self) -> Facts:
        return {"estimates": estimates(self._desk), "counts": self._desk.counts()}

    def _item(self, at: int) -> Facts:
        """What the list of records knows of one: its key, who answered, and the label as this person may see it."""
        desk, key = self._desk, self._desk.items[at].key
        answer, seen = desk.standing(key), desk.seen(key)
        is_open = desk.shows(key)
        label: Mapping[str, JSON] = {**((seen.label if seen and is_open else None) or {})}
        if answer is not None and is_open:
            label = {**label, **answer.fields}
        return {
            "key": printable(key),
            "by": None if answer is None else printable(answer.by),
            "unclear": answer is not None and answer.unclear,
            "note": answer is not None and bool(answer.note) and is_open,
            "differs": answer is not None and is_open and desk.differs(answer),
            # The texts of its choices: a label may hold a comma.
            "label": {
                printable(field.name): field.texts(label[field.name]) for field in desk.fields if field.name in label
            },
        }

    async def _record(self, asked: PageRequest) -> Facts:
        at = self._at(asked.query.get("at"))
        outcome, corrected = await self._desk.outcome(at)
        fields = outcome.record.fields
        shown_media = await self._showing.of(outcome.record)
        main = self._main_of(outcome, self._showing.sources(outcome.record))
        return {
            "at": at,
            "mark": self._desk.mark(outcome),
            "where": printable(f"{outcome.record.source}:{outcome.record.line}"),
            "texts": [_text(name, fields[name]) for name in main],
            "others": [_text(name, value) for name, value in fields.items() if name not in main],
            "media": [
                {"kind": one.kind, "told": one.told, "url": f"media/{at}/{n}"} for n, one in enumerate(shown_media)
            ],
            **self._labels(at, outcome, corrected),
        }

    def _main_of(self, outcome: Outcome, sources: frozenset[str] = frozenset()) -> list[str]:
        """The fields that are looked at first: those that the prompt names and that say something of their own."""
        fields = outcome.record.fields
        named = [name for name in fields if name in self._main]
        telling = [name for name in named if cell(fields[name]).strip() and cell(fields[name]) not in sources]
        return telling or ([] if sources else named or list(fields))

    def _labels(self, at: int, outcome: Outcome, corrected: Outcome) -> Facts:
        """The model's label, if this person may see it, what stands, and what is filled in to begin with."""
        desk, key = self._desk, self._desk.items[at].key
        answer = desk.standing(key)
        is_open = desk.shows(key)
        given = dict(answer.fields) if answer is not None and is_open else {}
        begin = {**((corrected.label or {}) if not desk.draw.blind else {}), **given}
        return {
            "item": self._item(at),
            "model": self._told(outcome.label) if is_open else None,
            "chosen": self._chosen(outcome.label) if is_open else {},
            "answer": None if answer is None or not is_open else self._answered(answer),
            "begin": {
                printable(field.name): field.said(begin[field.name]) for field in desk.fields if field.name in begin
            },
            "seen": desk.draw.blind and desk.has_met(key),
            "problem": None
            if outcome.problem is None
            else printable(f"{outcome.problem.code}: {outcome.problem.message}"),
        }

    def _told(self, label: Mapping[str, JSON] | None) -> Facts:
        given = label or {}
        return {
            printable(field.name): field.told(given[field.name]) for field in self._desk.fields if field.name in given
        }

    def _chosen(self, label: Mapping[str, JSON] | None) -> Facts:
        """The texts of the choices that the model has made, by field."""
        given = label or {}
        return {
            printable(field.name): field.texts(given[field.name]) for field in self._desk.fields if field.name in given
        }

    def _answered(self, answer: Answer) -> Facts:
        return {
            "by": printable(answer.by),
            "blind": answer.blind,
            "label": self._told(answer.fields),
            "unclear": answer.unclear,
            "note": answer.note,
        }

    async def _media(self, path: str) -> PageResponse:
        at, _, number = path.removeprefix("media/").partition("/")
        try:
            outcome, _ = await self._desk.outcome(self._at(at))
            shown_media = await self._showing.of(outcome.record)
            one = shown_media[int(number) if number.isdecimal() else len(shown_media)]
        except (RefusedAnswer, IndexError):
            return _json({"error": "Not found."}, 404)
        return PageResponse(one.data, kind=one.mime) if one.data else _json({"error": "Not found."}, 404)

    async def _find(self, asked: PageRequest) -> Facts:
        """The places of the records in which a text is: in the key, a field, or the note."""
        wanted = asked.query.get("text", "").casefold()
        found = []
        for start in range(0, len(self._desk.items), CHUNK):
            block = range(start, min(start + CHUNK, len(self._desk.items)))
            outcomes = await self._desk.outcomes([self._desk.items[at].key for at in block])
            found += [at for at in block if self._holds(at, outcomes.get(self._desk.items[at].key), wanted)]
        return {"places": found}

    def _holds(self, at: int, outcome: Outcome | None, wanted: str) -> bool:
        key = self._desk.items[at].key
        answer = self._desk.standing(key)
        note = answer.note if answer is not None and self._desk.shows(key) else ""
        fields = () if outcome is None else outcome.record.fields.values()
        return any(wanted in cell(value).casefold() for value in (key, note, *fields))

    async def _learned(self, _asked: PageRequest) -> Facts:
        await self._desk.refresh()
        await self._desk.look_again()
        found = answer_groups(self._desk)
        await self._add_excerpts(found)
        files = {"examples": printable(str(self._places.examples)), "gold": printable(str(self._places.gold))}
        return {
            "fields": found,
            "places": files,
            "meant": printable(describe_scope(self._desk.draw)),
            "files": self._files.told(),
            **self._now(),
        }

    async def _add_excerpts(self, found: list[Facts]) -> None:
        """To each record that is listed, how what the model was shown begins."""
        groups = [
            row for field in found for row in (*field["differing"], *field["unclear"], {"records": field["noted"]})
        ]
        listed = [one for row in groups for one in row["records"]]
        keys = {at: self._desk.items[at].key for at in {one["at"] for one in listed}}
        outcomes = await self._desk.outcomes(list(keys.values()))
        texts = {at: self._excerpt(outcomes.get(key)) for at, key in keys.items()}
        for one in listed:
            one["excerpt"] = texts[one["at"]]

    def _excerpt(self, outcome: Outcome | None) -> str:
        fields = {} if outcome is None else outcome.record.fields
        main = [] if outcome is None else self._main_of(outcome)
        text = " · ".join(cell(fields[name])[: 4 * EXCERPT_CHARS] for name in main)
        text = " ".join(text.split())
        return printable(text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}…")

    async def _guideline(self, _asked: PageRequest) -> Facts:
        parts = await asyncio.to_thread(guideline_of, self._places, self._fingerprint)
        return {"parts": parts, "why": printable(self._places.why)}

    # -- what is done ------------------------------------------------------------------------------------------------

    async def _say(self, asked: PageRequest) -> Facts:
        said = _object(asked)
        at = self._at(said.get("at"))
        answer = await self._desk.say(at, said)
        if answer.fields:
            self._files.note()
        outcome, corrected = await self._desk.outcome(at)
        return {"at": at, "id": answer.id, **self._labels(at, outcome, corrected), **self._others(said), **self._now()}

    def _others(self, said: Facts) -> Facts:
        """The records that the page does not know to be answered yet."""
        known = said.get("answered")
        total = sum(self._desk.standing(item.key) is not None for item in self._desk.items)
        if known == total:
            return {"items": None}
        return {"items": [self._item(at) for at in range(len(self._desk.items))]}

    async def _undo(self, _asked: PageRequest) -> Facts:
        at = await self._desk.undo()
        if at is None:
            return {"at": None, **self._now()}
        self._files.note()
        outcome, corrected = await self._desk.outcome(at)
        return {"at": at, **self._labels(at, outcome, corrected), **self._now()}

    async def _example(self, asked: PageRequest) -> Facts:
        _, corrected = await self._desk.outcome(self._answered_place(asked))
        functions = [tool["function"]["name"] for tool in self._fingerprint.get("tools") or ()]
        told = await asyncio.to_thread(
            add_example, self._places, self._desk.found, corrected, sorted(self._main), functions
        )
        return {"told": printable(told)}

    async def _gold(self, asked: PageRequest) -> Facts:
        _, corrected = await self._desk.outcome(self._answered_place(asked))
        told = await asyncio.to_thread(add_gold, self._places, self._desk.found, corrected, self._desk.fields)
        return {"told": printable(told)}

    async def _end(self, _asked: PageRequest) -> Facts:
        # The reply goes out first: the server lets answers on their way end.
        self.ended.set()
        return {"told": "The review has ended. You can close this page."}

    def _answered_place(self, asked: PageRequest) -> int:
        """The place of a record that somebody has answered with a label. Raises RefusedAnswer."""
        at = self._at(_object(asked).get("at"))
        answer = self._desk.standing(self._desk.items[at].key)
        if answer is None or not answer.fields:
            raise RefusedAnswer("Nobody has given this record a label yet.")
        return at

    def _at(self, given: Any) -> int:
        """A place in the draw. Raises RefusedAnswer."""
        if isinstance(given, str) and given.isdecimal() and len(given) < 10:
            given = int(given)
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < len(self._desk.items):
            raise RefusedAnswer("There is no such record in the draw.")
        return given


def _text(name: str, value: JSON) -> Facts:
    text = cell(value)
    more = f"{len(text) - FIELD_CHARS:,} more characters are not shown" if len(text) > FIELD_CHARS else ""
    return {"name": printable(name), "text": printable(text[:FIELD_CHARS]), "more": more}


def _object(asked: PageRequest) -> Facts:
    """The JSON object that was sent. Raises RefusedAnswer."""
    try:
        found = codec.loads(asked.body)
    except ValueError as error:
        raise RefusedAnswer("The request is not JSON.") from error
    if not isinstance(found, dict):
        raise RefusedAnswer("The request is not a JSON object.")
    return found


def _json(value: Facts, status: int = 200) -> PageResponse:
    return PageResponse(codec.dumps(codec.clean(value)), kind="application/json", status=status)


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)


@cache
def _file(name: str) -> bytes:
    return (_TEMPLATES / name).read_bytes()
