"""A run folder with many records done, made by a whole run whose model is a function in this process.

python -m benchmarks.contenders.fill CONFIG RECORDS
"""

from __future__ import annotations

import sys

from benchmarks.truth import NUMBER, label_of
from pipeline import Answer, Request, Response, RunOptions, Settings, ToolCall, Usage, run


async def answer(request: Request) -> Response:
    """The right label, at once."""
    found = NUMBER.search(request.messages[-1]["content"].encode())
    assert found is not None
    name = request.tools[0]["function"]["name"]
    called = ToolCall("call_1", name, f'{{"label": "{label_of(int(found[1]))}"}}')
    return Response(Answer(calls=(called,)), Usage(120, 9), request.model, "req_1", 0.0, None)


def main(config: str, records: str) -> None:
    """Label so many records."""
    summary = run(Settings.load(config, {"input.limit": int(records)}), RunOptions(quiet=True, provider=answer))
    assert summary.labelled == int(records), summary


if __name__ == "__main__":
    main(*sys.argv[1:])
