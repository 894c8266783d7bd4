"""Rebuilds a record's request from the task in the manifest, because the config may have changed since."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import LabelpipeError
from pipeline.records import JSON, Record, Request
from pipeline.task.attachments import PromptMedia
from pipeline.task.options import TaskOptions, ToolOptions
from pipeline.task.task import OMIT, PARALLEL, build_task

_LATER = ("call", "rows", "max_turns", "reply")


@dataclass(frozen=True, slots=True)
class RebuiltRequest:
    """A rebuilt request. `is_identical`: it equals the one that was sent. `reason`: why not, or why there is none."""

    request: Request | None
    is_identical: bool
    reason: str = ""


def rebuild_request(fingerprint: Mapping[str, Any], record: Record, digest: bytes | None) -> RebuiltRequest:
    """Rebuild a record's request with the task of this fingerprint. `digest` is that of the request that was sent."""
    first = None
    try:
        # How a call is forced depends on the server, which is not in the fingerprint.
        for names_function in (True, False):
            request = build_task(_options(fingerprint, names_function)).render(record)
            first = first or request
            if request.digest == digest:
                return RebuiltRequest(request, True)
    except LabelpipeError as error:
        return RebuiltRequest(None, False, str(error))
    except (KeyError, TypeError):
        return RebuiltRequest(None, False, "the tool's schema depends on the record, and the manifest does not keep it")
    return RebuiltRequest(first, False, "the task has changed since this record was asked, or a file that it shows has")


def _options(fingerprint: Mapping[str, Any], names_function: bool) -> TaskOptions:
    functions = [tool["function"] for tool in fingerprint["tools"]]
    tools = [ToolOptions(one["name"], one["parameters"], one.get("description")) for one in functions]
    parameters: dict[str, JSON] = {PARALLEL: OMIT, **fingerprint["parameters"]}
    return TaskOptions(
        model=fingerprint["model"],
        prompt=fingerprint["prompt"],
        system=fingerprint["system"],
        function=tools[0] if len(tools) == 1 else None,
        tools=tools if len(tools) > 1 else None,
        tool_choice=fingerprint["tool_choice"],
        names_function=names_function,
        strict=any(function.get("strict") for function in functions),
        parameters=parameters,
        examples=fingerprint.get("examples") or (),
        examples_k=fingerprint.get("examples_k"),
        media=PromptMedia() if "media" in fingerprint else None,
        **{name: fingerprint[name] for name in _LATER if name in fingerprint},
    )
