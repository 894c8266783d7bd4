"""Reads what the answers of all APIs share: doubtful JSON, errors in a success, texts in parts, token counts."""

import codecs
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pipeline import codec
from pipeline.errors import CallError, NoCompletionError, UnavailableError
from pipeline.providers.errorbody import read_body
from pipeline.providers.faults import refusal, scrub
from pipeline.records import JSON, Usage

#: What is accepted although the APIs send a text; `task.strict_answers` refuses it.
AS_OBJECT = "arguments that are an object, not a JSON text"
#: The message for an empty completion.
NO_CHOICE = "a completion without a choice"
#: The replacement for bytes that are not UTF-8.
BROKEN_SIGN = "\ufffd"
#: No call uses more tokens than this: a larger number is an error, and sums of such numbers would not fit anywhere.
MOST_TOKENS = 10**9


def parsed(content: bytes, secrets: Sequence[str]) -> tuple[Any, bool]:
    """Return the body, and whether all of its bytes are text. A byte order mark is ignored.

    Raises NoCompletionError for anything that is not JSON.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return codec.loads(content), True
    except codec.JSONDecodeError:
        with suppress(ValueError):
            return codec.loads_digits(content.decode()), True  # half an emoji in it: still a normal answer
        with suppress(codec.JSONDecodeError):
            return codec.loads(content.decode("utf-8", "replace")), False
    what = "an event stream" if content.lstrip().startswith((b"data:", b"event:")) else "not JSON"
    raise no_answer(NoCompletionError, f"a 200 that is {what}: {_excerpt(content, secrets)}")


def without_answer(body: Any, content: bytes, secrets: Sequence[str]) -> CallError:
    """Return the error for a success without an answer. Gateways send an upstream's error this way."""
    facts = read_body(body)
    if isinstance(body, dict | list) and (facts.texts or facts.statuses):
        return refusal(200, {}, facts, secrets=secrets)
    if isinstance(body, dict) and "choices" in body:
        error = no_answer(NoCompletionError, f"{NO_CHOICE}: {_excerpt(content, secrets)}")
        error.server_message = NO_CHOICE  # an API is there; a page may come from anything
        return error
    return no_answer(NoCompletionError, f"a 200 that is not a completion: {_excerpt(content, secrets)}")


def no_answer(kind: type[UnavailableError], facts: str) -> UnavailableError:
    """Return the error for a success without an answer. The model may have worked anyway."""
    return kind(facts, status=200, billed=True)


def _excerpt(content: bytes, secrets: Sequence[str]) -> str:
    return repr(scrub(content[:4_000].decode("utf-8", "replace"), secrets)[:80])


def refuse_error_in(holder: dict[str, Any], secrets: Sequence[str]) -> None:
    """Raise the `error` in this part of a success, judged as if it were the status.

    Some servers send an empty error with each answer.
    """
    error = holder.get("error")
    if isinstance(error, dict):
        says = any(error.get(name) for name in ("message", "code", "type", "metadata"))
    else:
        says = isinstance(error, str) and bool(error.strip())
    if says:
        raise refusal(200, {}, read_body({"error": error}), secrets=secrets)


def refuse_broken(part: JSON) -> None:
    """Raise UnavailableError if bytes of this part of an answer are not text."""
    if BROKEN_SIGN in codec.dumps(part).decode():
        raise no_answer(UnavailableError, "an answer with bytes that are not text")


def exact(body: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Return the body with all digits of its integers: the arguments of its calls are an object, not a text."""
    with suppress(codec.JSONDecodeError, UnicodeDecodeError):  # nested too deeply
        body = codec.loads_digits(content.removeprefix(codecs.BOM_UTF8).decode())
    return body


def arguments_text(arguments: JSON) -> str:
    """Return a call's arguments as text; some servers send them as an object."""
    return arguments if isinstance(arguments, str) else codec.dumps(arguments).decode()


def text_of(value: Any) -> str | None:
    """Return the text, and join a list of content parts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [part.get("text") for part in value if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return None


def usage_of(usage: Any, prompt_name: str, completion_name: str) -> Usage:
    """Return the usage of the call; all 0 if it is absent or impossible.

    The names are those of the two sums, whose parts are in `..._details`.
    """
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = _count(usage, prompt_name), _count(usage, completion_name)
    if prompt is None or completion is None:
        return Usage()
    of_prompt, of_completion = usage.get(prompt_name + "_details"), usage.get(completion_name + "_details")
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=_part(of_prompt, "cached_tokens", prompt),
        reasoning=_part(of_completion, "reasoning_tokens", completion),
        cache_write=_part(of_prompt, "cache_write_tokens", prompt),
    )


def _part(details: Any, name: str, whole: int) -> int:
    """Return a part of a sum: at most all of it, and 0 if it is unknown."""
    return min(whole, _count(details, name) or 0)


def _count(holder: Any, name: str) -> int | None:
    """Return a count of tokens; 0 if it is absent, None if it is not a count."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if value is None:
        return 0
    is_whole = type(value) is int or (isinstance(value, float) and value == value // 1)
    return int(value) if is_whole and 0 <= value <= MOST_TOKENS else None
