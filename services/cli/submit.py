"""`mige submit`: a spec from a file or a pipe becomes a job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.output import (
    EXIT_CANCELLED,
    EXIT_FAILED,
    EXIT_REJECTED,
    fail,
    note,
    print_json,
    print_text,
    why,
)

if TYPE_CHECKING:
    from services.client import Client, Resource


def submit(
    file: Annotated[str, typer.Argument(help="A job spec in JSON; - reads standard input.")],
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one value of the spec, such as training.epochs=10. May be repeated.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Stay until the job has ended.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check; print the spec that would run.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", help="The same key and spec name the same job, however often."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job as JSON.")] = False,
) -> None:
    """Submit a training job.

    Prints the job's id. With --wait it shows progress and exits with 0 if the job succeeded, 1 if
    it failed, 130 if it was cancelled; a rejected spec exits with 2.

    Examples:
      mige submit services/quickstart/digits.json --wait

      mige submit job.json --set training.epochs=10 --set resources.num_workers=2

      cat job.json | mige submit - --json
    """
    spec = apply_changes(read_spec(file), change or [])
    from services.client import Client

    with Client() as client:
        if dry_run:
            print_json(client.plan(spec))
            return
        job = client.submit(spec, idempotency_key=key)
        if not wait:
            _print_job(job, as_json)
            return
        note(f"{job['id']} is queued")
        job = wait_for(client, job["id"])
        _print_job(job, as_json)
        raise ended(job)


def wait_for(client: Client, job_id: str) -> Resource:
    """Show a job's progress until it has ended. An interrupt leaves the job alone."""
    from services.cli.progress import JobProgress

    try:
        with JobProgress() as progress:
            return client.wait(job_id, on_progress=progress.update)
    except KeyboardInterrupt:
        note(f"the job goes on; `mige watch {job_id}` shows it again")
        raise


def ended(job: Resource) -> typer.Exit:
    """The exit that tells how a job ended; says why, if it did not succeed."""
    if job["status"] == "succeeded":
        note(f"encoder {job['encoder_id']}; `mige download {job['encoder_id']}` fetches it")
        return typer.Exit(0)
    code = EXIT_CANCELLED if job["status"] == "cancelled" else EXIT_FAILED
    return fail(f"{job['id']} {job['status']}: {why(job)}", code)


def read_spec(file: str) -> dict[str, Any]:
    """The spec in a file, or on standard input for `-`."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        spec = json.loads(text)
    except OSError as exc:
        raise fail(f"{file}: {exc.strerror}", EXIT_REJECTED) from None
    except ValueError as exc:
        raise fail(f"{file} is not JSON: {exc}", EXIT_REJECTED) from None
    if not isinstance(spec, dict):
        raise fail(f"{file} holds no JSON object", EXIT_REJECTED)
    return spec


def apply_changes(spec: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The spec with each `a.b=value` put in; a value that is not JSON is taken as text."""
    for change in changes:
        path, equals, text = change.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise fail(f"--set {change}: write it as a.b=value", EXIT_REJECTED)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        target = spec
        for name in names[:-1]:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise fail(f"--set {change}: {name} holds no further keys", EXIT_REJECTED)
        target[names[-1]] = value
    return spec


def _print_job(job: Resource, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_text(f"{job['id']}\n")
