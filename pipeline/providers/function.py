"""A function in place of an API, for tests and for your own models."""

from collections.abc import Awaitable, Callable

from pipeline.records import Request, Response


class FunctionProvider:
    """Answers requests with an asynchronous function. It does not report whether it is simulated, and has no ping."""

    simulated: bool | None = None
    ping: None = None

    def __init__(self, function: Callable[[Request], Awaitable[Response]]) -> None:
        self._function = function

    async def __call__(self, request: Request) -> Response:
        """Return the function's answer."""
        return await self._function(request)
