"""Which representation a client wants."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from services.errors import ProblemError


def preferred_type(request: Request, offered: Sequence[str]) -> str:
    """The first media type of the Accept header that is offered; without one, the first offered.

    Quality values are not weighed: clients of this API name the one type they want.

    Raises:
        ProblemError: `not_acceptable`: nothing that is offered would be accepted.
    """
    accept = request.headers.get("accept", "*/*")
    for part in accept.split(","):
        wanted = part.partition(";")[0].strip().lower()
        for media_type in offered:
            if wanted in ("*/*", media_type, f"{media_type.partition('/')[0]}/*"):
                return media_type
    raise ProblemError("not_acceptable", f"Offered are {', '.join(offered)}.")
