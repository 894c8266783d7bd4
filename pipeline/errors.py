"""Every error that labelpipe raises, in one tree.

    LabelpipeError
    ├── SetupError                 the run cannot start: exit code 2
    │   ├── ConfigError            a value in the config, with file, line and key
    │   ├── InputError             the input as a whole cannot be read
    │   │   └── MissingInputError  there is no such file
    │   │   └── NothingToAskError  no record of it can be asked
    │   ├── TaskError              a prompt, schema or tool that cannot work
    │   ├── ChangedError           the run folder belongs to another task or input
    │   ├── RunInUseError          another process works on the run folder
    │   └── MissingExtraError      an optional package is needed; names the extra
    ├── RenderError                the prompt or schema cannot be made for this record
    │   ├── EmptyTextError         the prompt contains nothing of the record
    │   └── MediaError             a picture, sound or document of the record cannot be shown
    ├── StoreError                 the ledger or a sink cannot be written: exit code 3
    ├── StoppedError               the run is ending; the record stays pending
    ├── InternalError              an unforeseen error: of one record, or of the run if many records have it
    ├── InterruptedRunError        a signal: exit code 130
    │   └── HungUpError            the terminal or the connection is gone: exit code 129
    ├── NoLabelError               many records in a row got no label, for one reason: exit code 2, or 3
    ├── CallError                  one call failed: one class per verdict
    │   ├── RateLimitedError       429: everyone waits as long as the server says
    │   ├── NoRoomError            no room at the flex tier: the record alone waits
    │   ├── UnavailableError       5xx, a broken connection, an unusable answer
    │   │   ├── NoCompletionError  a success that is not a completion: a page, an event stream, half a JSON
    │   │   ├── NoHostError        the name of the host does not resolve
    │   │   └── UnknownRefusalError  a 4xx that does not say what is wrong: asked again like a 5xx
    │   ├── CallTimeoutError       no answer in timeout_s
    │   ├── RecordRefusedError     refused for what is in this record only: its length, its content
    │   │   └── TooLargeError      a 429 that never passes: the request alone is above the limit
    │   ├── RequestShapeError      a 400 about the form of the request: prompt, schema, parameters
    │   ├── UnusableCallError      the server found no call in what the model wrote: becomes an answer
    │   ├── QuotaError             no quota or credit left
    │   └── CredentialsError       wrong key, no access, unknown model
    └── AnswerError                an answer came, but it has no valid label
        ├── InvalidAnswerError     worth asking again with the fault shown
        ├── TruncatedError         cut at the token limit: ask again with more room
        ├── RefusalError           the model or its content filter declined
        ├── UnfinishedError        the conversation did not end within max_turns
        └── CallbackError          the user's callback raised; the answer is kept
            └── NotCalledError     it was not even called: too many calls of it hang

An error carries its facts as attributes. `code` is the short word for it in the ledger, failed.csv and `retry --only`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

SHOWN_FIELDS = 20


class LabelpipeError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows instead of a traceback. The message says what to do; the traceback does not."""
        return f"{type(self).__name__}: {self}".splitlines()


class SetupError(LabelpipeError):
    """The run cannot start."""

    code = "setup"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the config.

    `source`: a file, `environment NAME`, `--set key=value`. `line` is 1-based, None outside of files. `key` may be "".
    """

    source: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.text) if part)


class ConfigError(SetupError):
    """A value in the config is wrong. The message has one line per mistake."""

    code = "config"

    def __init__(self, message: str | None = None, *, mistakes: tuple[Mistake, ...] = ()) -> None:
        super().__init__(message or "\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class InputError(SetupError):
    """The input cannot be read."""

    code = "input"


class NothingToAskError(InputError):
    """No record of the input can be asked."""

    code = "nothing_to_ask"


class MissingInputError(InputError):
    """The input does not exist."""


class TaskError(SetupError):
    """The task's prompt, schema, or tool cannot work."""

    code = "task"


class ChangedError(SetupError):
    """The run folder holds a run of another task, model or input."""

    code = "changed"


class RunInUseError(SetupError):
    """Another process works on this run folder."""

    code = "in_use"


class MissingExtraError(SetupError):
    """An optional package is not installed."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package: pip install 'labelpipe[{extra}]'")
        self.extra = extra


class RenderError(LabelpipeError):
    """The prompt or the tool's schema cannot be made for this record."""

    code = "render_error"


class EmptyTextError(RenderError):
    """The prompt contains nothing of this record."""

    code = "empty_text"


class MediaError(RenderError):
    """An image, audio file, or document of this record cannot be shown to the model."""

    code = "media_error"


class StoreError(LabelpipeError):
    """The ledger or an output file cannot be written."""

    code = "store"


class StoppedError(LabelpipeError):
    """The run is stopping and makes no new calls."""

    code = "stopped"


class InternalError(LabelpipeError):
    """labelpipe itself failed."""

    code = "internal_error"


class NoLabelError(LabelpipeError):
    """The first records, or many in a row later, were asked and got no label, all for one reason.

    `reason` is the code of their problems; `is_late`: the run had labels before.
    """

    code = "no_label"

    def __init__(self, message: str | None = None, *, reason: str = "", is_late: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_late = is_late


class CallError(LabelpipeError):
    """A call failed.

    Attributes: `status` is the HTTP status or None; `retry_after_s` is what the server asked for, or None;
    `request_id` is the server's name for the call; `billed`: tokens may have been charged; `server_message` is the
    server's own message, empty for a page (except one with a 429), or a note that a completion has no choice.
    `has_no_room`: the message says that the flex tier has no room.
    """

    code = "call"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.billed = billed
        self.server_message = ""
        self.has_no_room = False


class RateLimitedError(CallError):
    """The server's rate limit refused the call.

    `scope` is "tokens" if the token limit refused it, else "requests". `day_limit` describes the daily limit that is
    used up (200 requests). `is_of_size`: the message may mean that this request is too large for the limit.
    """

    code = "rate_limited"

    def __init__(
        self,
        message: str | None = None,
        *,
        scope: str = "requests",
        retry_after_s: float | None = None,
        day_limit: str = "",
        is_of_size: bool = False,
    ) -> None:
        super().__init__(message, status=429, retry_after_s=retry_after_s)
        self.scope = scope
        self.day_limit = day_limit
        self.is_of_size = is_of_size


class NoRoomError(CallError):
    """The server has no room at the flex tier."""

    code = "no_room"


class UnavailableError(CallError):
    """The server did not give a usable answer."""

    code = "unavailable"


class NoCompletionError(UnavailableError):
    """The server answered with success but without a completion. From the first call on, the address is wrong."""


class NoHostError(UnavailableError):
    """The name of the host does not resolve: it is misspelled, or the network is down."""


class UnknownRefusalError(UnavailableError):
    """Something on the way refused the call and did not say what is wrong with it.

    This is a 4xx that the API does not use (407, 412, 424, 460, 498, 499), or one with a page or an empty body, as
    proxies send.
    """


class CallTimeoutError(CallError):
    """No answer in time."""

    code = "timeout"


class RecordRefusedError(CallError):
    """The server refuses this record."""

    code = "bad_request"


class TooLargeError(RecordRefusedError):
    """The request alone is above the server's limit: it can never pass, and says nothing about the rate."""

    code = "too_large"


class RequestShapeError(CallError):
    """The server refuses the form of the request; `certain` is true if it named a parameter that all records share."""

    code = "bad_request"

    def __init__(self, message: str | None = None, *, certain: bool = False, status: int | None = None) -> None:
        super().__init__(message, status=status)
        self.certain = certain


class UnusableCallError(CallError):
    """The server found no valid call in what the model wrote.

    `generated` is that text. The mistake is the model's, not the request's: the provider turns it into an answer.
    """

    code = "no_tool_call"

    def __init__(self, message: str | None = None, *, generated: str = "") -> None:
        super().__init__(message, billed=True)
        self.generated = generated


class QuotaError(CallError):
    """No quota or credit is left."""

    code = "quota"


class CredentialsError(CallError):
    """The server refuses the key, the access, or the model's name."""

    code = "credentials"


class AnswerError(LabelpipeError):
    """The answer has no valid label. `ask` tells the model what to do when asked again; None: make the call."""

    code = "invalid_answer"

    def __init__(self, message: str | None = None, *, ask: str | None = None) -> None:
        super().__init__(message)
        self.ask = ask


class InvalidAnswerError(AnswerError):
    """The answer is not a valid call of the function.

    `code` is an instance attribute: no_tool_call, invalid_json, invalid_label, or unfinished (without last words).
    """

    def __init__(self, message: str | None = None, *, code: str = "invalid_label", ask: str | None = None) -> None:
        super().__init__(message, ask=ask)
        self.code = code  # type: ignore[misc]


class TruncatedError(AnswerError):
    """The answer was cut at the token limit."""

    code = "truncated"


class RefusalError(AnswerError):
    """The model or its content filter declined to answer."""

    code = "refused"


class UnfinishedError(AnswerError):
    """The conversation did not end."""

    code = "unfinished"


class CallbackError(AnswerError):
    """The callback raised."""

    code = "callback_error"


class NotCalledError(CallbackError):
    """The callback was not called: there was no thread for it."""


class InterruptedRunError(LabelpipeError):
    """Interrupted by a signal."""

    code = "interrupted"


class HungUpError(InterruptedRunError):
    """The run's terminal or connection is gone."""


def list_names(fields: Iterable[Any]) -> str:
    """List the names of the fields, for a message."""
    names = [str(name) for name in fields]
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return f"{', '.join(names[:SHOWN_FIELDS]) or 'none'}{more}"


def did_you_mean(name: Any, fields: Iterable[Any]) -> str:
    """Suggest the field that was likely meant, for a message; empty if none is close."""
    names = {str(field).casefold(): str(field) for field in fields}
    near = get_close_matches(str(name).casefold(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""
