"""A function in the place of an API: for tests, and for models of one's own."""

from collections.abc import Awaitable, Callable

from pipeline.records import Request, Response


class FunctionProvider:
    """Answers requests by an asynchronous function. It says nothing of being simulated, and knows no ping."""

    simulated: bool | None = None
    ping: None = None

    def __init__(self, function: Callable[[Request], Awaitable[Response]]) -> None:
        self._function = function

    async def __call__(self, request: Request) -> Response:
        """The function's answer, or its error."""
        return await self._function(request)
