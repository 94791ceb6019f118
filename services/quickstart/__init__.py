"""The job specs that the README shows and `make demo` submits; each stands in one place only."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

QUICKSTARTS = ("digits", "mnist")


def load_quickstart(name: str) -> dict[str, Any]:
    """The spec called `name`, one of `QUICKSTARTS`."""
    text = (files(__package__) / f"{name}.json").read_text(encoding="utf-8")
    spec: dict[str, Any] = json.loads(text)
    return spec
