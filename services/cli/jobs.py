"""Commands about jobs that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.output import note, print_json, print_rows, print_text, progress_text, why
from services.cli.submit import ended, wait_for

if TYPE_CHECKING:
    from services.client import Resource

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, such as job_0198….")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_jobs(
    status: Annotated[
        str | None, typer.Option(help="Only jobs with this status, such as running or failed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the jobs, newest first.

    Example: mige jobs --status running
    """
    from services.client import Client

    with Client() as client:
        found = list(client.jobs(status=status, limit=limit))
    if as_json:
        print_json(found)
        return
    print_rows(
        ("ID", "NAME", "STATUS", "PROGRESS", "CREATED", "ENCODER"),
        (
            (j["id"], j["name"], j["status"], progress_text(j), _when(j), j["encoder_id"])
            for j in found
        ),
        "there are no jobs; `mige submit FILE` makes one",
    )


def show_job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: where it stands, and how each attempt ended.

    Example: mige job job_0198... --json
    """
    from services.client import Client

    with Client() as client:
        job, attempts = client.job(job_id), client.attempts(job_id)
    if as_json:
        print_json({**job, "attempts": attempts})
        return
    facts: list[tuple[str, Any]] = [
        (key, job[key]) for key in ("id", "name", "status", "phase", "encoder_id", "created_at")
    ]
    facts += [("progress", progress_text(job)), ("data", job["spec"]["data"]["kind"])]
    if job["reason"]:
        facts.append(("why", why(job)))
    print_rows(("", ""), [(k, v) for k, v in facts if v], "")
    print_rows(
        ("ATTEMPT", "STARTED", "RESUMED AT", "ENDED BECAUSE", "MESSAGE"),
        (
            (a["number"], a["started_at"], a["resumed_step"], a["reason"], a["message"])
            for a in attempts
        ),
        "it has not been started yet",
    )


def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job's progress until it has ended. Ctrl-C leaves the job alone.

    Exits with 0 if it succeeded, 1 if it failed, 130 if it was cancelled.
    """
    from services.client import Client

    with Client() as client:
        job = wait_for(client, job_id)
    if as_json:
        print_json(job)
    raise ended(job)


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which attempt; the last one if not given.")
    ] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
) -> None:
    """Print what a job's runner and workers wrote.

    Example: mige logs job_0198... --tail 50
    """
    from services.client import Client

    with Client() as client:
        if not follow:
            print_text(client.logs(job_id, attempt=attempt, tail=tail))
            return
        for piece in client.follow_logs(job_id, attempt=attempt):
            print_text(piece)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """End a job. What it has learned is lost; `mige pause` keeps it."""
    from services.client import Client

    with Client() as client:
        _answer(client.cancel(job_id), as_json)


def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a job save its state and give its resources back; `mige resume` goes on."""
    from services.client import Client

    with Client() as client:
        _answer(client.pause(job_id), as_json)


def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Queue a paused job again: it goes on from its last checkpoint."""
    from services.client import Client

    with Client() as client:
        _answer(client.resume(job_id), as_json)


def _answer(job: Resource, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        note(f"{job['id']} is {job['status']}")


def _when(job: Resource) -> str:
    return str(job["created_at"])[:19].replace("T", " ")
