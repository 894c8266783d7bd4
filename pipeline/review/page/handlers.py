"""Handles the page's requests: sends JSON about the draw and its records, and receives answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.loopback import PageRequest, PageResponse
from pipeline.records import JSON, Outcome
from pipeline.review.page.estimates import answer_groups, describe_scope, estimates
from pipeline.review.page.media import MediaPreview
from pipeline.review.page.output_updater import OutputUpdater
from pipeline.review.page.reuse import CannotAddError, ReuseFiles, add_example, add_gold, guideline_of
from pipeline.review.page.session import RefusedAnswer, ReviewSession
from pipeline.store import Answer, cell
from pipeline.task import fields_in_prompt
from pipeline.terminal import printable

#: The most characters of a field that are shown: a browser cannot lay out much more.
FIELD_CHARS = 1_000_000
#: The most characters of a record in the list of results.
EXCERPT_CHARS = 200
#: How many records are searched for a text at once.
CHUNK = 200
_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {
    "review.js": "text/javascript; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
#: Allows only the page's own script, style sheet, images, sounds, and requests.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
Facts: TypeAlias = dict[str, Any]


class PageHandlers:
    """Answers the requests of the page. `ended` is set when the person ends the review."""

    def __init__(
        self,
        session: ReviewSession,
        media_preview: MediaPreview,
        reuse_files: ReuseFiles,
        fingerprint: Mapping[str, Any],
        updater: OutputUpdater,
    ) -> None:
        self._session = session
        self._media_preview = media_preview
        self._reuse_files = reuse_files
        self._fingerprint = fingerprint
        self._updater = updater
        self._main = fields_in_prompt(fingerprint)
        self.ended = asyncio.Event()
        self._routes: dict[tuple[str, str], Callable[[PageRequest], Awaitable[Facts]]] = {
            ("GET", "state"): self._state,
            ("GET", "record"): self._record,
            ("GET", "find"): self._find,
            ("GET", "learned"): self._answer_groups,
            ("GET", "guideline"): self._guideline,
            ("POST", "answer"): self._save_answer,
            ("POST", "undo"): self._undo,
            ("POST", "example"): self._example,
            ("POST", "gold"): self._gold,
            ("POST", "end"): self._end,
        }

    async def answer(self, request: PageRequest) -> PageResponse:
        """Return the response to one request."""
        if request.method == "GET" and request.path == "":
            return PageResponse(self._html(), policy=POLICY)
        if request.method == "GET" and request.path in _FILES:
            return PageResponse(_file(request.path), kind=_FILES[request.path])
        if request.method == "GET" and request.path.startswith("media/"):
            return await self._media(request.path)
        route = self._routes.get((request.method, request.path))
        if route is None:
            known = any(path == request.path for _, path in self._routes)
            return _json({"error": "Not found."}, 405 if known else 404)
        try:
            return _json(await route(request))
        except (RefusedAnswer, CannotAddError) as error:
            return _json({"error": printable(str(error))}, 422)
        except LabelpipeError as error:
            return _json({"error": printable(str(error))}, 500)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _html(self) -> bytes:
        session = self._session
        page = _environment().get_template("review.html").render(
            title=printable(session.run.run_dir.path.absolute().name), blind=session.draw.blind,
            by=printable(session.by), simulated=session.run.simulated,
        )  # fmt: skip
        return page.encode(errors="replace")

    async def _state(self, _request: PageRequest) -> Facts:
        session = self._session
        await session.reload_schema()
        await session.refresh()
        return {
            "run": printable(str(session.run.run_dir.path)),
            "draw": session.draw.id,
            "blind": session.draw.blind,
            "by": printable(session.by),
            "population": session.draw.population,
            "meant": printable(describe_scope(session.draw)),
            "fields": [field.as_dict() for field in session.fields],
            "items": self._items(),
            **self._now(),
        }

    def _items(self) -> list[Facts]:
        return [self._item(at) for at in range(len(self._session.items))]

    def _now(self) -> Facts:
        return {"estimates": estimates(self._session), "counts": self._session.counts()}

    def _item(self, at: int) -> Facts:
        """Return a record's entry in the list: its key, who answered, and the label if this person may see it."""
        session, key = self._session, self._session.items[at].key
        answer, snapshot = session.current_answer(key), session.snapshots.get(key)
        is_open = session.may_show_label(key)
        model = snapshot.label if snapshot and is_open else None
        return {
            "key": printable(key),
            "by": None if answer is None else printable(answer.by),
            "unclear": answer is not None and answer.unclear,
            "note": answer is not None and bool(answer.note) and is_open,
            "differs": answer is not None and is_open and session.differs(answer),
            # A list of texts, because a label may contain a comma.
            "label": self._by_field({**(model or {}), **(answer.fields if answer and is_open else {})}, "value_texts"),
        }

    async def _record(self, request: PageRequest) -> Facts:
        at = self._at(request.query.get("at"))
        outcome, corrected = await self._session.outcome(at)
        fields = outcome.record.fields
        shown_media = await self._media_preview.of(outcome.record)
        main = self._main_of(outcome, self._media_preview.sources(outcome.record))
        return {
            "at": at,
            "mark": self._session.version_token(outcome),
            "where": printable(f"{outcome.record.source}:{outcome.record.line}"),
            "texts": [_text(name, fields[name]) for name in main],
            "others": [_text(name, value) for name, value in fields.items() if name not in main],
            "media": [
                {"kind": one.kind, "told": one.note, "url": f"media/{at}/{n}"} for n, one in enumerate(shown_media)
            ],
            **self._labels(at, outcome, corrected),
        }

    def _main_of(self, outcome: Outcome, sources: frozenset[str] = frozenset()) -> list[str]:
        """Return the fields to show first: those of the prompt that are neither empty nor a media source."""
        fields = outcome.record.fields
        prompt_fields = [name for name in fields if name in self._main]
        telling = [name for name in prompt_fields if cell(fields[name]).strip() and cell(fields[name]) not in sources]
        return telling or ([] if sources else prompt_fields or list(fields))

    def _labels(self, at: int, outcome: Outcome, corrected: Outcome) -> Facts:
        """Return the model's label, if this person may see it, the current answer, and the initial values."""
        session, key = self._session, self._session.items[at].key
        is_open = session.may_show_label(key)
        answer = session.current_answer(key) if is_open else None
        begin = {**({} if session.draw.blind else corrected.label or {}), **(answer.fields if answer else {})}
        problem = outcome.problem
        return {
            "item": self._item(at),
            "model": self._by_field(outcome.label, "describe") if is_open else None,
            "chosen": self._by_field(outcome.label, "value_texts") if is_open else {},
            "answer": answer and self._describe_answer(answer),
            "begin": self._by_field(begin, "to_page"),
            "seen": session.draw.blind and key in session.answered_elsewhere,
            "problem": problem and printable(f"{problem.code}: {problem.message}"),
        }

    def _by_field(self, label: Mapping[str, JSON] | None, form: Literal["describe", "value_texts", "to_page"]) -> Facts:
        """Return the values of a label by field, in this form."""
        fields = [field for field in self._session.fields if field.name in (label or {})]
        return {printable(field.name): getattr(field, form)((label or {})[field.name]) for field in fields}

    def _describe_answer(self, answer: Answer) -> Facts:
        return {
            "by": printable(answer.by),
            "blind": answer.blind,
            "label": self._by_field(answer.fields, "describe"),
            "unclear": answer.unclear,
            "note": answer.note,
        }

    async def _media(self, path: str) -> PageResponse:
        at, _, number = path.removeprefix("media/").partition("/")
        try:
            outcome, _ = await self._session.outcome(self._at(at))
            shown_media = await self._media_preview.of(outcome.record)
            one = shown_media[int(number) if number.isdecimal() else len(shown_media)]
        except (RefusedAnswer, IndexError):
            return _json({"error": "Not found."}, 404)
        return PageResponse(one.data, kind=one.mime) if one.data else _json({"error": "Not found."}, 404)

    async def _find(self, request: PageRequest) -> Facts:
        """Return the places of the records that contain a text in the key, a field, or the note."""
        wanted = request.query.get("text", "").casefold()
        places = []
        for start in range(0, len(self._session.items), CHUNK):
            block = range(start, min(start + CHUNK, len(self._session.items)))
            outcomes = await self._session.ledger.outcomes_of([self._session.items[at].key for at in block])
            places += [at for at in block if self._holds(at, outcomes.get(self._session.items[at].key), wanted)]
        return {"places": places}

    def _holds(self, at: int, outcome: Outcome | None, wanted: str) -> bool:
        key = self._session.items[at].key
        answer = self._session.current_answer(key)
        note = answer.note if answer is not None and self._session.may_show_label(key) else ""
        fields = () if outcome is None else outcome.record.fields.values()
        return any(wanted in cell(value).casefold() for value in (key, note, *fields))

    async def _answer_groups(self, _request: PageRequest) -> Facts:
        await self._session.refresh()
        await self._session.reload_labels()
        groups = answer_groups(self._session)
        await self._add_excerpts(groups)
        files = {"examples": printable(str(self._reuse_files.examples)), "gold": printable(str(self._reuse_files.gold))}
        return {
            "fields": groups,
            "places": files,
            "meant": printable(describe_scope(self._session.draw)),
            "files": self._updater.status(),
            **self._now(),
        }

    async def _add_excerpts(self, fields: list[Facts]) -> None:
        """Add to each listed record the beginning of its main fields."""
        groups = [
            row for field in fields for row in (*field["differing"], *field["unclear"], {"records": field["noted"]})
        ]
        listed = [one for row in groups for one in row["records"]]
        keys = {at: self._session.items[at].key for at in {one["at"] for one in listed}}
        outcomes = await self._session.ledger.outcomes_of(list(keys.values()))
        texts = {at: self._excerpt(outcomes.get(key)) for at, key in keys.items()}
        for one in listed:
            one["excerpt"] = texts[one["at"]]

    def _excerpt(self, outcome: Outcome | None) -> str:
        fields = {} if outcome is None else outcome.record.fields
        main = [] if outcome is None else self._main_of(outcome)
        text = " · ".join(cell(fields[name])[: 4 * EXCERPT_CHARS] for name in main)
        text = " ".join(text.split())
        return printable(text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}…")

    async def _guideline(self, _request: PageRequest) -> Facts:
        parts = await asyncio.to_thread(guideline_of, self._reuse_files, self._fingerprint)
        return {"parts": parts, "why": printable(self._reuse_files.why)}

    # -- changes -----------------------------------------------------------------------------------------------------

    async def _save_answer(self, request: PageRequest) -> Facts:
        body = _object(request)
        at = self._at(body.get("at"))
        answer = await self._session.save_answer(at, body)
        if answer.fields:
            self._updater.on_answer()
        outcome, corrected = await self._session.outcome(at)
        return {"at": at, "id": answer.id, **self._labels(at, outcome, corrected), **self._others(body), **self._now()}

    def _others(self, body: Facts) -> Facts:
        """Return all items if records were answered that the page does not know about; otherwise None."""
        total = sum(self._session.current_answer(item.key) is not None for item in self._session.items)
        return {"items": None if body.get("answered") == total else self._items()}

    async def _undo(self, _request: PageRequest) -> Facts:
        at = await self._session.undo()
        if at is None:
            return {"at": None, **self._now()}
        self._updater.on_answer()
        outcome, corrected = await self._session.outcome(at)
        return {"at": at, **self._labels(at, outcome, corrected), **self._now()}

    async def _example(self, request: PageRequest) -> Facts:
        _, corrected = await self._session.outcome(self._answered_place(request))
        functions = [tool["function"]["name"] for tool in self._fingerprint.get("tools") or ()]
        message = await asyncio.to_thread(
            add_example, self._reuse_files, self._session.run, corrected, sorted(self._main), functions
        )
        return {"told": printable(message)}

    async def _gold(self, request: PageRequest) -> Facts:
        _, corrected = await self._session.outcome(self._answered_place(request))
        message = await asyncio.to_thread(
            add_gold, self._reuse_files, self._session.run, corrected, self._session.fields
        )
        return {"told": printable(message)}

    async def _end(self, _request: PageRequest) -> Facts:
        # The server still sends this response: it finishes the requests that are in progress.
        self.ended.set()
        return {"told": "The review has ended. You can close this page."}

    def _answered_place(self, request: PageRequest) -> int:
        """Return the place of a record that somebody has answered with a label. Raises RefusedAnswer."""
        at = self._at(_object(request).get("at"))
        answer = self._session.current_answer(self._session.items[at].key)
        if answer is None or not answer.fields:
            raise RefusedAnswer("Nobody has given this record a label yet.")
        return at

    def _at(self, place: Any) -> int:
        """Return a place in the draw. Raises RefusedAnswer."""
        if isinstance(place, str) and place.isdecimal() and len(place) < 10:
            place = int(place)
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(self._session.items):
            raise RefusedAnswer("There is no such record in the draw.")
        return place


def _text(name: str, value: JSON) -> Facts:
    text = cell(value)
    more = f"{len(text) - FIELD_CHARS:,} more characters are not shown" if len(text) > FIELD_CHARS else ""
    return {"name": printable(name), "text": printable(text[:FIELD_CHARS]), "more": more}


def _object(request: PageRequest) -> Facts:
    """Return the JSON object of the request. Raises RefusedAnswer."""
    try:
        value = codec.loads(request.body)
    except ValueError as error:
        raise RefusedAnswer("The request is not JSON.") from error
    if not isinstance(value, dict):
        raise RefusedAnswer("The request is not a JSON object.")
    return value


def _json(value: Facts, status: int = 200) -> PageResponse:
    return PageResponse(codec.dumps(codec.clean(value)), kind="application/json", status=status)


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)


@cache
def _file(name: str) -> bytes:
    return (_TEMPLATES / name).read_bytes()
