"""Problems: every way in which a request can fail, as an HTTP status and an OpenAI-shaped error body.

======  ==========================  ==================================================================================
status  code                        when
======  ==========================  ==================================================================================
400     invalid_utf8, invalid_json  the body isn't UTF-8, isn't JSON, or isn't a JSON object
400     invalid_value               a field that routing needs has the wrong type (``param`` names it)
400     unsupported_parameter       a student (`mop students serve`) cannot do what a field asks for
400     context_length_exceeded     a student's model cannot read so many tokens
400     unknown_parameter           /v1/route only: a field that it doesn't have (elsewhere all are passed on)
400     no_user_message             there is no user message to route
401     invalid_api_key             keys are asked for, and this isn't one
403     cross_origin                a web page of another origin asks a server that has no keys
403     unknown_host                a server on the loopback that has no keys is asked under another name than localhost
404     model_not_found, not_found  no such mixture; no such path
405     method_not_allowed          the path takes another method
408     request_timeout             the request's body didn't arrive in time
413     request_too_large           the request's body is too large
429     overloaded                  too many requests are being answered and waiting; has Retry-After
429     upstream_rate_limited       the upstream says 429; its Retry-After is passed on
500     internal_error              a defect; the log has it under the response's x-request-id
502     upstream_unreachable        no connection, tried again for a while
502     upstream_dropped            the connection ended before the answer did (in a stream: an error event)
502     upstream_malformed          HTML, no JSON, a redirect, or JSON that isn't an answer
502     upstream_error_body         an error in a response of status 200
502     upstream_failed             the upstream says 5xx
502     upstream_refused            the upstream says 4xx for a reason that isn't the caller's, such as its key
502     encoder_failed              the encoder cannot encode the query
503     stopping                    the server is being stopped and its grace is over (in a stream: an error event)
504     upstream_timeout            no answer in time (in a stream: an error event)
======  ==========================  ==================================================================================

The upstream's 400, 413 and 422 are about the caller's own parameters, and are passed on in its words, with its code;
the metrics count them all as upstream_refused_parameters.

Whatever may pass by itself (429, 503, 504, an upstream that is unreachable, failed or broke off) has Retry-After; an
error event in the middle of a stream cannot have headers any more, and its code says the same.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mop.errors import MopError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(MopError):
    """A request that cannot be answered, as its caller is told.

    Args:
        status: HTTP status.
        code: One of the codes above, or the upstream's own.
        message: What was wrong and what to do. Never holds the upstream's key or a path of this machine.
        param: The field of the request that is to blame.
        retry_after: Seconds after which asking again makes sense.
        again: Whether the server itself may ask the upstream once more.
        wait: Seconds for which the upstream itself asked to be left alone, before that.
        label: The label of the metrics where the code is the upstream's own: there could be any number of those.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        again: bool = False,
        wait: float = 0.0,
        label: str | None = None,
    ) -> None:
        super().__init__(message)
        self.label = code if label is None else label
        self.status, self.code, self.param = status, code, param
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        self.again = again
        self.wait = wait

    @property
    def document(self) -> dict[str, Any]:
        """The error body, as the OpenAI API has it."""
        if self.code.startswith("upstream_") and self.status != 429:
            kind = "upstream_error"
        else:
            kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def body(self) -> bytes:
        """The error body as JSON."""
        return json.dumps(self.document).encode()


def invalid(param: str, message: str) -> Problem:
    """Return the problem of a field with the wrong type or value."""
    return Problem(400, "invalid_value", message, param=param)
