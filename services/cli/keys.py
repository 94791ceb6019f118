"""`mige keys`: who may use the service. Works on this machine's database, also while it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.output import EXIT_REJECTED, fail, note, print_json, print_rows, print_text

if TYPE_CHECKING:
    from jobs.store import Store

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke API keys. Needs the service's home (MIGE_HOME), not its address.",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in the list.")],
    project: Annotated[str, typer.Option(help="The project whose jobs it sees.")] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do; everything but admin if not given.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Ends after so many days.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown once: only its hash is kept.

    Example: mige keys create laptop --scope jobs:read --scope encoders:read --days 30
    """
    from services.auth import SCOPES

    scopes = frozenset(scope or set(SCOPES) - {"admin"})
    unknown = sorted(scopes - set(SCOPES))
    if unknown:
        raise fail(f"no scope {unknown[0]!r}; there are: {', '.join(SCOPES)}", EXIT_REJECTED)
    ends = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _local_store() as store:
        record, secret = store.create_key(
            project=project, scopes=scopes, name=name, expires_at=ends
        )
    if as_json:
        print_json({"id": record.id, "project": project, "scopes": sorted(scopes), "key": secret})
        return
    note(f"key {record.id} for project {project}; it is not shown again:")
    print_text(f"{secret}\n")


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys that work. Their secrets are nowhere to be read."""
    with _local_store() as store:
        found = store.keys()
    if as_json:
        print_json(
            [
                {
                    "id": k.id,
                    "name": k.name,
                    "project": k.project,
                    "scopes": sorted(k.scopes),
                    "expires_at": k.expires_at and k.expires_at.isoformat(),
                }
                for k in found
            ]
        )
        return
    print_rows(
        ("ID", "NAME", "PROJECT", "SCOPES", "ENDS"),
        ((k.id, k.name, k.project, " ".join(sorted(k.scopes)), k.expires_at) for k in found),
        "there are no keys; `mige keys create NAME` makes one",
    )


@app.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")]) -> None:
    """Make a key useless, at once and for good."""
    with _local_store() as store:
        store.revoke_key(key_id)
    note(f"{key_id} is revoked")


@contextmanager
def _local_store() -> Iterator[Store]:
    from jobs.store import open_store
    from services.settings import load_settings

    settings = load_settings()
    store = open_store(settings.database, home=settings.home)
    try:
        yield store
    finally:
        store.close()
