"""Tables of what servers' codes and words mean. Each was seen in public; tests cite where.

Codes are compared in lowercase. The words of a pattern count only if no code of the table matches. They are weaker than
codes, because a message may quote the request.
"""

import re
from collections.abc import Set
from dataclasses import dataclass

from pipeline.providers.errorbody import ErrorFacts


@dataclass(frozen=True, slots=True)
class ErrorPattern:
    """Codes and words with one meaning. The words count only under `statuses`; empty: under any."""

    codes: Set[str]
    words: re.Pattern[str]
    statuses: Set[int] = frozenset()

    def matches(self, status: int, facts: ErrorFacts) -> bool:
        """Whether the error has one of the codes, or the words."""
        if self.codes & facts.words:
            return True
        return (not self.statuses or status in self.statuses) and bool(self.words.search(facts.text))


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


#: Statuses under which a gateway passes on another server's error about the request.
_OF_REQUESTS = frozenset({200, 400, 403, 413, 422, 451, 500, 502, 503})

#: The model's mistake: the server found no call in its text, or no JSON that fits the schema. LiteLLM passes on the
#: words but not the code; Ollama and llama.cpp have only words.
UNUSABLE_CALL = ErrorPattern(
    frozenset({"tool_use_failed", "json_validate_failed"}),
    _words(
        r"tool_use_failed", r"failed to call a function", r"json_validate_failed",
        r"failed to (validate|generate) json", r"error parsing tool call", r"failed to parse input at pos",
    ),
    frozenset({200, 400, 422, 500}),
)  # fmt: skip

CONTENT = ErrorPattern(
    frozenset(
        {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation_blocked",
         "invalid_prompt", "data_inspection_failed", "datainspectionfailed", "content_filtered", "prohibited_content",
         "image_content_policy_violation", "content_moderation", "sensitivecontentdetected", "bio_policy",
         "misalignment_policy_violation", "1301", "1026"}
    ),
    _words(
        r"content (management|usage) polic", r"content[_ ]?polic(y|ies)(?!_fallback)", r"ContentPolicyViolation",
        r"content[_ ]filter",
        r"content exists risk", r"\b(input|prompt|request|content|text|message)s? (was|were|has been|is) flagged",
        r"requires moderation", r"violat\w* .{0,60}\b(usage|content|safety|use) (polic|guideline)",
        r"content violates", r"prompt injection", r"safety system", r"safety_check", r"inappropriate content",
        r"不安全|敏感内容",
    ),
    _OF_REQUESTS,
)  # fmt: skip

#: "suspended" or "disabled" describes an account, not a text.
ACCOUNT = _words(
    r"\b(account|organi[sz]ation|user|team|project|api key) .{0,60}\b(flagged|disabled|suspended|terminated|blocked"
    r"|banned|deactivated|restricted)"
)

LENGTH = ErrorPattern(
    frozenset(
        {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "context_window_exceeded",
         "model_context_window_exceeded", "request_too_large", "input_too_long", "prompt_too_long", "1261"}
    ),
    _words(
        r"(maximum|model'?s|max) (context|prompt|model|sequence) length", r"context (size|window)", r"context length",
        r"ContextWindowExceeded", r"\b(prompt|input|request|text|message)s? (is|are|was)? ?(too|to) (long|large)",
        r"reduce the length", r"inputs?`? tokens? \+ `?max_new_tokens", r"inputs?`? must have less than",
        r"max_tokens must be at least 1, got -", r"max_model_len", r"longer than the (maximum )?model",
        r"input token count .{0,40}exceeds", r"exceeds the maximum number of tokens", r"range of input length",
        r"too many (input )?tokens\b", r"tokens? in request more than", r"超长",
    ),
    _OF_REQUESTS - {403, 451},
)  # fmt: skip

#: An image, audio file, or document of the record that the server cannot use.
MEDIA = ErrorPattern(
    frozenset(
        {"invalid_image", "invalid_image_format", "invalid_image_url", "image_too_large", "image_parse_error",
         "unsupported_image", "invalid_base64", "invalid_audio", "unsupported_content", "invalid_base64_image",
         "image_too_small", "invalid_image_mode", "image_file_too_large", "unsupported_image_media_type",
         "empty_image_file", "failed_to_download_image", "image_file_not_found"}
    ),
    _words(
        r"(could not|unable to|cannot|can't|failed to) (process|identify|load|decode|download|open|fetch|read)\b"
        r".{0,30}\b(image|audio|file)",
        r"invalid image",
    ),
    frozenset({400, 415, 422, 500}),
)  # fmt: skip

QUOTA = ErrorPattern(
    frozenset(
        {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated",
         "payment_required", "budget_exceeded", "exceeded_current_quota_error", "arrearage", "creditserror",
         "allocationquota.freetieronly", "credit_balance_too_low", "insufficient_credits", "insufficient_balance",
         "insufficient_balance_error", "insufficient_funds", "not_enough_balance", "spend_limit_exceeded",
         "blocked_api_access", "1113", "1308", "1309", "1310", "1008", "30001", "30011"}
    ),
    _words(
        r"credit balance is too low", r"insufficient (account |paid )?(balance|credit|fund|quota)",
        r"\b(balance|credits?) (is|are|has been) (insufficient|exhausted|depleted)", r"(out|run out) of credits",
        r"(used|exhausted) all (of )?(your |the )?(available )?credits", r"requires more credits",
        r"credit limit exceeded",
        r"budget has been exceeded", r"ExceededBudget", r"BudgetExceeded", r"exceeded (the )?budget", r"crossed budget",
        r"spend(ing)? (limit|cap|alert)", r"unpaid|past invoices|overdue", r"payment required", r"key limit exceeded",
        r"\blimit: 0, model\b", r"free quota has been exhausted", r"inactive subscription",
        r"monthly included credits", r"calls / month",
        r"余额不足|欠费|充值",
    ),
)  # fmt: skip

#: The same in words that records use too: they count only under statuses that quote no record and would cause a wait.
USED_UP = ErrorPattern(
    frozenset({"subscription_expired", "wallet_empty", "usage_limit_reached"}),
    _words(
        r"\b(monthly|weekly)( \w+)? (limit|cap|quota|allowance)", r"\bwallet\b",
        r"\b(trial|subscription|plan) (has |is )?(ended|expired|over)\b",
        r"\b(allowance|quota|credit|budget|balance)s? ((is|are|was|ha(s|ve) been) )?(finished|used up|spent|gone)\b",
    ),
    frozenset({429, 503}),
)  # fmt: skip

RATE = ErrorPattern(
    frozenset(
        {"rate_limit_exceeded", "rate_limit_error", "rate_limit_reached_error", "too_many_requests",
         "resource_exhausted", "ratelimitreached", "ratelimiterror", "1302", "1303"}
    ),
    _words(r"rate.?limit", r"too many requests"),
    frozenset({200}),
)  # fmt: skip

#: No capacity for calls that ask for the flex tier (OpenAI's and Azure's 429, Groq's 498).
NO_ROOM = ErrorPattern(
    frozenset({"resource_unavailable", "capacity_exceeded"}),
    _words(r"resources?[ _]unavailable", r"\bflex\b.{0,60}\b(capacity|unavailable)\b"),
    frozenset({429, 498, 503}),
)

#: A day limit: a wait of seconds does not help.
DAY = ErrorPattern(
    frozenset({"1304"}),
    _words(
        r"\bper.?day\b", r"PerDay", r"\b[RT]PD\b", r"\bdaily\b", r"-per-day", r"per 86,?400 ?s", r"/ ?day\b",
        r"ByDay\b",
    ),
)  # fmt: skip

#: A wrong key or a missing model, under a status that does not show it.
CREDENTIALS = ErrorPattern(
    frozenset(
        {"invalid_api_key", "api_key_invalid", "authentication_error", "invalid_authentication_error", "unauthorized",
         "model_not_found", "model_decommissioned", "invalid_model", "modelnotfound",
         "unsupported_country_region_territory", "data_residency_mismatch"}
    ),
    _words(
        r"(incorrect|invalid|expired) api.?key", r"api.?key (is )?(not valid|invalid|expired)", r"not a valid model",
        r"unknown model", r"\bmodel\b.{1,100}(does not exist|not found|was not found|is not available)",
        r"no such model", r"plain HTTP request was sent to HTTPS", r"sent an HTTP request to an HTTPS",
    ),
    frozenset({200, 400, 422}),
)  # fmt: skip

#: The types of a 400, for an error in a success without a number.
BAD_REQUEST = frozenset({"invalid_request_error", "bad_request", "badrequesterror", "invalid_argument"})

#: The parameters of Chat Completions that are the same for every record.
SHAPE_PARAMS = re.compile(
    r"^(model|tools|tool_choice|parallel_tool_calls|response_format|temperature|top_p|seed|stop|n|logprobs|top_logprobs|"
    r"max_tokens|max_completion_tokens|reasoning_effort|service_tier|metadata|store|user|prompt_cache_key|verbosity|"
    r"presence_penalty|frequency_penalty|logit_bias|stream|thinking|strict)\b"
)

_LIMIT = re.compile(r"\blimit(?: is| of)?:?\s*([\d,._]+\d|\d)", re.IGNORECASE)
_REQUESTED = re.compile(r"\brequested:?\s*([\d,._]+\d|\d)", re.IGNORECASE)
_ROOM = re.compile(
    r"max_(?:completion_)?tokens\W.{0,60}?too large: (\d+).{0,80}maximum context length is (\d+)", re.DOTALL
)
_AGAIN = re.compile(
    r"(?:try again|retry|wait|available again|reset\w{0,9})(?: \w{1,20})? (?:in|after|for)?\s*"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|d)(?![a-z])\s*)+)",
    re.IGNORECASE,
)


#: "request of 70000 tokens is greater than your quota of 60000": two numbers, and which one is larger.
_COMPARED = re.compile(
    r"(?P<whose>[^\d.]{0,80})\b(?P<one>\d[\d,._]*)\b[^\d.]{0,60}"
    r"(?:>|\b(?:greater|larger|longer|bigger|more|higher) than\b|\babove\b|\bover\b|\bexceed(?:s|ed|ing)?\b)"
    r"[^\d]{0,80}?(?P<other>\d[\d,._]*)",
    re.IGNORECASE,
)
_A_REQUEST = re.compile(r"\b(request|prompt|message|input|body|payload)\b", re.IGNORECASE)
_SIZE = _words(
    r"\btoo (large|long|big)\b",
    r"\bmax(imum)? (\w+ )?(size|length)\b",
    r"\b(larger|longer|bigger) than\b",
    r"\b(body|request|prompt|input|payload|message)s? (size|length)\b",
)
#: The use of many calls together, or a wait, which says nothing about the size of this one.
_OF_TIME = _words(r"\b(try again|retry|wait|current(ly)?|used|usage|so far|already|remaining|concurren\w*)\b")


def is_above_limit(text: str) -> bool:
    """Whether the request alone is above the limit: "Limit 30000, Requested 40112"."""
    limit, requested = _number(_LIMIT, text), _number(_REQUESTED, text)
    return bool(limit and requested and requested > limit)


def says_it_is_larger(text: str) -> bool:
    """Whether a 429 describes the request as above the limit: "a request of 70000 is above 60000"."""
    found = _COMPARED.search(text)
    return bool(found and _A_REQUEST.search(found["whose"]) and _is_larger(found) and not _OF_TIME.search(text))


def is_of_size(text: str) -> bool:
    """Whether the words may mean that this request is too large: a size, or a number above another one."""
    if _OF_TIME.search(text):
        return False
    found = _COMPARED.search(text)
    return bool(_SIZE.search(text)) or bool(found and _is_larger(found))


def _is_larger(found: re.Match[str]) -> bool:
    one, other = (re.sub(r"\D", "", found[name])[:18] for name in ("one", "other"))
    return int(one) > int(other) > 0


def asks_for_more_than_fits(text: str) -> bool:
    """Whether the room for an answer alone exceeds the model's limit: then every request fails."""
    found = _ROOM.search(text)
    return found is not None and int(found[1]) >= int(found[2])


def again_after(text: str) -> str:
    """Return the wait in a message as a duration like 9m38.016s; empty if there is none."""
    found = _AGAIN.search(text)
    if found is None:
        return ""
    long = {"milliseconds": "ms", "millisecond": "ms", "seconds": "s", "second": "s", "secs": "s", "sec": "s",
            "minutes": "m", "minute": "m", "mins": "m", "min": "m", "hours": "h", "hour": "h"}  # fmt: skip
    return re.sub(r"[a-z]+", lambda unit: long.get(unit[0], unit[0]), found[1].lower().replace(" ", ""))


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    digits = re.sub(r"\D", "", found[1]) if found else ""
    return int(digits[:18]) if digits else None
