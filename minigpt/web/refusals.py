"""What a client is told when it gets no answer: a status and one sentence, in OpenAI's shape.

{"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

import sys
import traceback
from collections.abc import Mapping

from starlette.responses import JSONResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """A request that is not served. `param` names the field at fault, `code` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, _encodable(message), _encodable(param), code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict:
        """
        >>> Refusal(400, "n is 0: give at least 1", "n").body
        {'error': {'message': 'n is 0: give at least 1', 'type': 'invalid_request_error', 'param': 'n', 'code': None}}
        """
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def mistake(problem: Exception) -> Refusal:
    """What a client is told of a mistake of ours; the log has the rest."""
    traceback.print_exception(problem, file=sys.stderr)
    return Refusal(500, "something went wrong in the server: its log says what")


def _encodable(text: str | None) -> str | None:
    """What a client wrote may hold half a surrogate pair, which no answer can."""
    return text and text.encode("utf-8", "replace").decode("utf-8")
