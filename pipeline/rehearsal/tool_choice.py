"""Chooses the functions that an answer calls, and how often; none means an answer in words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.rehearsal.replies import Body, ErrorReply, invalid
from pipeline.rehearsal.seeded_random import SeededRandom
from pipeline.rehearsal.tools import Tool, ToolSet

#: How often a model that has its results makes one more call before it answers in words.
_ONCE_MORE = 0.25
#: After this many rounds it answers in words, whatever the results say.
_MOST_ROUNDS = 3
#: The most parallel calls of one function, if they are allowed.
_MOST_PARALLEL = 3
#: A result that matches is about the call itself, so the call is repeated.
_COMPLAINT = re.compile(r"\W{0,20}(?:error|invalid)\b", re.IGNORECASE)
_CALL, _AGAIN = (re.compile(rf"\b{word}\b", re.IGNORECASE) for word in ("call", "again"))
_WORD = re.compile(r"[^\W\d_]{4,}")
#: Letters that identify a word: "refunded" counts as "refund".
_STEM_CHARS = 6
#: The weight of a word of the name; a word of the description has 1.
_NAME_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """What the answer may call. Without tools, the answer is text.

    `named`: the request names the one function. `free`: words are also allowed. `parallel` is the request's value.
    """

    tools: tuple[Tool, ...] = ()
    named: bool = False
    free: bool = False
    parallel: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolResults:
    """The results at the end of a conversation. `rounds` counts the answers with calls since the last user message."""

    rounds: int = 0
    calls: int = 0
    complaint: bool = False


NO_RESULTS = ToolResults()


def offer_of(body: Body, tools: ToolSet | None) -> OfferedTools | ErrorReply:
    """Return what the request offers, or what is wrong with its choice."""
    choice, parallel = body.get("tool_choice"), body.get("parallel_tool_calls")
    if tools is None:
        return _nothing(body)
    if parallel is not None and not isinstance(parallel, bool):
        return invalid(
            f"Invalid type for 'parallel_tool_calls': expected a boolean, got {parallel!r}.", "parallel_tool_calls"
        )
    if choice in (None, "auto", "required"):
        return OfferedTools(tools.tools, free=choice != "required", parallel=parallel)
    if choice == "none":
        return OfferedTools()
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict) or choice.get("type") != "function":
        return invalid(f"Invalid value for 'tool_choice': {choice!r}.", "tool_choice")
    tool = tools.named(str(function.get("name")))
    if tool is None:
        return invalid(f"Tool choice {function.get('name')!r} not found in 'tools' parameter.", "tool_choice")
    return OfferedTools((tool,), named=True, parallel=parallel)


def _nothing(body: Body) -> OfferedTools | ErrorReply:
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) not in (None, "none"):
            return invalid(f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name)
    return OfferedTools()


def results_of(messages: Sequence[Body], text_of: Callable[[Body], str]) -> ToolResults:
    """Return what the functions returned, if the conversation ends with that."""
    if messages[-1]["role"] != "tool":
        return NO_RESULTS
    rounds = calls = 0
    last: list[str] = []
    for message in messages:
        match message["role"]:
            case "user":
                rounds = calls = 0
            case "assistant":
                rounds += bool(message.get("tool_calls"))
                last = []
            case "tool":
                calls += 1
                last.append(text_of(message))
    return ToolResults(rounds, calls, any(map(_complains, last)))


def _complains(text: str) -> bool:
    if _COMPLAINT.match(text):
        return True
    # One search per word: a pattern of both would start again at each "call".
    first = _CALL.search(text)
    return first is not None and _AGAIN.search(text, first.end()) is not None


def choose_tools(offer: OfferedTools, results: ToolResults, text: str, *seeds: object) -> tuple[Tool, ...]:
    """Return the functions that the answer calls, in order, with repeats; none for an answer in words."""
    if len(offer.tools) == 1 and not offer.parallel and not results.rounds:
        return offer.tools  # nearly every call; needs no random numbers
    if not offer.tools:
        return ()
    rng = SeededRandom("calls", *seeds)
    if offer.free and results.rounds:
        return (_best_match(offer, text, rng),) if _calls_on(results, rng) else ()
    if len(offer.tools) == 1:
        return offer.tools * (1 + rng.below(_MOST_PARALLEL) if offer.parallel else 1)
    return (_best_match(offer, text, rng),) if offer.parallel is False else offer.tools


def _calls_on(results: ToolResults, rng: SeededRandom) -> bool:
    if results.complaint:
        return results.rounds < _MOST_ROUNDS
    return results.rounds == 1 and rng.unit() < _ONCE_MORE


def _best_match(offer: OfferedTools, text: str, rng: SeededRandom) -> Tool:
    """Return the function whose name and description the text mentions most; if none is mentioned, a random one.

    The last line counts first, because it contains the record; the prompt's general instructions precede it.
    """
    for part in (text.rstrip().rpartition("\n")[2], text):
        scores = _scores(offer.tools, _stems(part))
        if len(set(scores)) > 1:
            break
    best = [tool for tool, score in zip(offer.tools, scores, strict=True) if score == max(scores)]
    return best[rng.below(len(best))]


def _scores(tools: Sequence[Tool], stems: set[str]) -> list[int]:
    names = [_stems(tool.name.replace("_", " ")) for tool in tools]
    descriptions = [_stems(tool.description) for tool in tools]
    return [
        _NAME_WEIGHT * len(name & stems) + len(words & stems) for name, words in zip(names, descriptions, strict=True)
    ]


def _stems(text: str) -> set[str]:
    return {word[:_STEM_CHARS] for word in _WORD.findall(text.casefold())}
