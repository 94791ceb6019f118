"""What can go wrong at the API, as data: one row per `code`, served as a page each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """A class of problems: its HTTP status, its title and what usually helps."""

    status: int
    title: str
    remedy: str
    retryable: bool = False


_SPEC_REMEDY = (
    "Correct the fields named in `errors`; GET /v1/objectives/{name}/schema shows what is allowed."
)

PROBLEMS: Mapping[str, ProblemKind] = MappingProxyType(
    {
        "json_refused": ProblemKind(
            400, "The body is not acceptable JSON", "Send one plain JSON document in UTF-8."
        ),
        "request_invalid": ProblemKind(
            400, "The request cannot be understood", "Correct the request."
        ),
        "host_not_allowed": ProblemKind(
            400,
            "The Host header names another host",
            "Use the address the service was started with, or add the name to MIGE_ALLOWED_HOSTS.",
        ),
        "unauthorized": ProblemKind(
            401,
            "A valid key is needed",
            "Send `Authorization: Bearer <key>`; `mige keys create NAME` makes a key.",
        ),
        "scope_missing": ProblemKind(
            403, "The key does not allow this", "Use a key that has the scope named in `detail`."
        ),
        "not_found": ProblemKind(
            404, "There is nothing here", "Check the id or the path; a list shows what exists."
        ),
        "method_not_allowed": ProblemKind(
            405, "The path does not know this method", "Use a method named in the Allow header."
        ),
        "not_acceptable": ProblemKind(
            406, "No such representation", "Ask for a media type named in `detail`."
        ),
        "state_conflict": ProblemKind(
            409, "The job's state does not allow this", "Read the job and decide again."
        ),
        "stale_fence": ProblemKind(
            409, "A newer attempt of the job exists", "End this attempt and write nothing more."
        ),
        "stopped": ProblemKind(409, "The attempt was told to stop", "End this attempt."),
        "precondition_failed": ProblemKind(
            412, "The resource has another version", "Read it again and use its ETag."
        ),
        "body_too_large": ProblemKind(413, "The body is too large", "Send less in one request."),
        "media_type_unsupported": ProblemKind(
            415,
            "The body has a type or an encoding that is not accepted",
            "Send `Content-Type: application/json` and no Content-Encoding.",
        ),
        "range_not_satisfiable": ProblemKind(
            416, "The range lies outside the file", "Ask for bytes that the file has."
        ),
        "validation_failed": ProblemKind(
            422, "The request has fields that do not fit", _SPEC_REMEDY
        ),
        "spec_invalid": ProblemKind(422, "The spec cannot work", _SPEC_REMEDY),
        "data_unavailable": ProblemKind(
            422, "The data set is not there", "Put the data where the detail says."
        ),
        "data_invalid": ProblemKind(422, "The data set cannot be used", "Repair the data set."),
        "objective_infeasible": ProblemKind(
            422, "The objective cannot run with this spec", _SPEC_REMEDY
        ),
        "infeasible_config": ProblemKind(
            422, "Parts of the spec do not fit together", _SPEC_REMEDY
        ),
        "too_large": ProblemKind(422, "The job is too large to run", _SPEC_REMEDY),
        "invalid_cursor": ProblemKind(
            422, "The cursor is not one of ours", "Use `next_cursor` of the page before, as it is."
        ),
        "unknown_status": ProblemKind(422, "There is no such status", "Use a known status."),
        "out_of_range": ProblemKind(422, "A number is out of range", "Ask for fewer."),
        "input_invalid": ProblemKind(
            422, "The encoder cannot embed this input", "Send images in the encoder's input shape."
        ),
        "artifact_invalid": ProblemKind(
            422, "A staged file is not what its manifest says", "Stage the result again."
        ),
        "nan_loss": ProblemKind(422, "Training diverged", "Lower the learning rate."),
        "idempotency_key_reused": ProblemKind(
            422, "The idempotency key belongs to another body", "Use a new key for a new request."
        ),
        "quota_exceeded": ProblemKind(
            429, "Too much is queued", "Wait for jobs to end, or cancel some.", retryable=True
        ),
        "internal_error": ProblemKind(
            500, "The service failed", "Report the request id; the log has the reason."
        ),
        "settings_invalid": ProblemKind(
            500, "The service is set up in a way that cannot work", "Correct its settings."
        ),
        "storage_unavailable": ProblemKind(
            503, "Storage does not answer", "Try again in a moment.", retryable=True
        ),
        "worker_lost": ProblemKind(503, "Workers were lost", "Try again.", retryable=True),
        "artifact_corrupt": ProblemKind(
            503,
            "A stored file is damaged",
            "Restore the file from a copy, or train the encoder again.",
        ),
        "overloaded": ProblemKind(
            503, "Too many requests of this kind at once", "Try again in a moment.", retryable=True
        ),
        "storage_full": ProblemKind(
            507,
            "No room is left",
            "Free disk space; the service goes on by itself.",
            retryable=True,
        ),
    }
)


def problem_page(code: str) -> str:
    """The page behind a problem's `type`, as plain text."""
    kind = PROBLEMS[code]
    again = "The same request may be sent again." if kind.retryable else ""
    lines = (f"{code}: {kind.title}", "", f"Status: {kind.status}", kind.remedy, again)
    return "\n".join(lines).rstrip() + "\n"
