"""`mige doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.output import EXIT_FAILED, console, print_json

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and the service. Exits with 1 if something is broken.

    A warning tells of something that only some uses need, such as a service that does not run.
    """
    from rich.markup import escape

    from services.checks import run_checks

    findings = run_checks()
    if as_json:
        print_json([f.as_dict() for f in findings])
    else:
        for finding in findings:
            colour = _COLOURS[finding.level]
            console().print(
                f"[{colour}]{finding.level:>4}[/{colour}]  {finding.name:<12} "
                f"{escape(finding.detail)}"
            )
            if finding.remedy:
                console().print(f"      {'':<12} {escape(finding.remedy)}")
    if any(f.level == "fail" for f in findings):
        raise typer.Exit(EXIT_FAILED)
