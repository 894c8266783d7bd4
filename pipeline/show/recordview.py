"""Formats one record with all that its run has about it. Long texts are cut; `--json` has all of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pipeline import codec
from pipeline.show.formatting import SIMULATED, Facts, many, plain
from pipeline.units import dollars

#: The most characters of a text to show.
SHOWN_CHARS = 1_200
_WIDE = 20


def record_lines(facts: Facts) -> list[str]:
    """Format the record, its rows, the prompt, the answers, and the reviews."""
    place = "" if facts["source"] is None else f"  {facts['source']}:{facts['line']}"
    lines = [f"{facts['key']}  {facts['status']}{place}"]
    if (problem := facts["problem"]) is not None:
        lines.append(f"  {problem['code']}: {_short(problem['message'])}")
    lines += _section("fields", _values(facts["fields"]))
    for number, row in enumerate(facts["rows"], 1):
        several = f" {number} of {len(facts['rows'])}" if len(facts["rows"]) > 1 else ""
        lines += _section(f"row{several}{_whose(facts)}", _values(row))
    lines += _prompt(facts["prompt"])
    for answer in facts["answers"]:
        lines += _section(_head(answer), _answer_lines(answer))
    if facts["reviews"]:
        lines += _section("reviews", map(_review, facts["reviews"]))
    if facts["draws"]:
        lines += _section("draws", map(_draw, facts["draws"]))
    return [*lines, SIMULATED] if facts["simulated"] else lines


def _section(title: str, lines: Iterator[str] | Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)]


def _values(values: Facts) -> Iterator[str]:
    """Format values as `name  value`, with further lines of a value below."""
    width = min(_WIDE, max(map(len, values), default=0))
    for name, value in values.items():
        first, *rest = _short(plain(value)).split("\n")
        yield f"{name:<{width}}  {first}".rstrip()
        yield from (f"{'':<{width}}  {line}" for line in rest)


def _whose(facts: Facts) -> str:
    correction = facts["correction"]
    if correction is None:
        return ""
    if correction["unused_because"]:
        return f" (the correction of {correction['by']} is not used: {correction['unused_because']})"
    return f" (as {correction['by']} says, {_at(correction['at'])})"


def _prompt(prompt: Facts | None) -> list[str]:
    if prompt is None:
        return _section("prompt", ["none: the record was rejected before it was asked"])
    how = "as it was sent" if prompt["is_as_sent"] else f"NOT as it was sent: {prompt['why']}"
    if not prompt["messages"]:
        return _section("prompt", [f"cannot be rendered again: {prompt['why']}"])
    lines = []
    for message in prompt["messages"]:
        first, *rest = _short(_message(message)).split("\n")
        lines += [f"{message['role']}: {first}", *(f"  {line}" for line in rest)]
    names = ", ".join(tool["function"]["name"] for tool in prompt["tools"])
    return _section(f"prompt, {how}", [*lines, f"(functions: {names})"])


def _message(message: Facts) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return content if isinstance(content, str) else codec.dumps(message.get("tool_calls")).decode()


def _part(part: Facts) -> str:
    return f"[{part['kind']} {part['source']}]" if part.get("type") == "attachment" else str(part.get("text", ""))


def _head(answer: Facts) -> str:
    """Format when the answer came, its number, and what it took."""
    kind = {
        "current": "the current answer",
        "kept": f"answer {answer.get('turn', 0) + 1}, kept",
        "archived": f"archived {_at(answer.get('archived_at'))} ({answer.get('reason')})",
    }[answer["state"]]
    usage = answer["usage"]
    facts = [
        answer["model"],
        many(answer["attempts"], "attempt"),
        many(answer["repairs"], "repair") if answer["repairs"] else "",
        f"{usage['prompt']:,} + {usage['completion']:,} tokens",
        "price unknown" if answer["cost_usd"] is None else dollars(answer["cost_usd"]),
        "" if answer["latency_s"] is None else f"{answer['latency_s']:.2f} s",
        f"request {answer['request_id']}" if answer["request_id"] else "",
        f"copied from {answer['copied_from']}" if answer.get("copied_from") else "",
        f"asked as {answer['asked_as']}" if answer.get("asked_as") else "",
    ]
    return f"{_at(answer['at'])}  {kind}: {', '.join(filter(None, facts))}"


def _answer_lines(answer: Facts) -> Iterator[str]:
    """Format what the model answered, and what was wrong with it."""
    if answer["problem"]:
        yield f"problem: {_short(answer['problem'])}"
    for call in answer["calls"]:
        yield f"{call['name']} {_short(call['arguments'])}"
    for name in ("text", "refusal"):
        if answer[name]:
            first, *rest = _short(answer[name]).split("\n")
            yield f"{name}: {first}"
            yield from (f"  {line}" for line in rest)
    if answer["finish_reason"] not in (None, "stop", "tool_calls"):
        yield f"finish_reason: {answer['finish_reason']}"


def _review(review: Facts) -> str:
    how = ", ".join(
        filter(None, ["blind" if review["blind"] else "", f"draw {review['draw']}" if review["draw"] else ""])
    )
    words = [
        f"takes back answer {review['takes_back']}" if review["takes_back"] else _judgement(review),
        "the guideline is unclear" if review["unclear"] else "",
        f'"{_short(review["note"])}"' if review["note"] else "",
        "(taken back)" if review["taken_back"] else "",
    ]
    return f"{_at(review['at'])}  {review['by']}{f' ({how})' if how else ''}: {'; '.join(filter(None, words))}"


def _judgement(review: Facts) -> str:
    if review["new"] is None:
        return "right as it is"
    old = review["old"] or {}
    changes = [
        f"{name} {_short(plain(value))}" if old.get(name) == value and name in old
        else f"{name} {_short(plain(old.get(name))) or '(no label)'} -> {_short(plain(value))}"
        for name, value in review["new"].items()
    ]  # fmt: skip
    return ", ".join(changes)


def _draw(drawn: Facts) -> str:
    stratum = f", {drawn['stratum']}" if drawn["stratum"] else ""
    what = f"draw {drawn['draw']} ({drawn['purpose']})"
    return f"{_at(drawn['at'])}  {what}, probability {drawn['probability']:.4g}{stratum}"


def _at(moment: float | None) -> str:
    if not moment:
        return "(no time)"
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _short(text: str) -> str:
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS].rstrip()} … ({len(text) - SHOWN_CHARS:,} more characters; --json shows all)"
