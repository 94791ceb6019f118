"""Build an entry of a registry from a name and options, refusing what the entry does not know."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from mige.checks import check_choice
from mige.errors import InvalidInputError

T = TypeVar("T")


def build_from_registry(
    registry: Mapping[str, Callable[..., T]], kind: str, name: str, options: Mapping[str, object]
) -> T:
    """Call `registry[name](**options)`.

    Args:
        registry: a literal dict of names and constructors with keyword-only arguments.
        kind: what the registry holds, for messages ("score estimator").
        name: the entry.
        options: the entry's keyword arguments.

    Raises:
        InvalidInputError: the name or an option is unknown, or a required option is missing.
    """
    check_choice(kind, name, registry.keys())
    constructor = registry[name]
    parameters = inspect.signature(constructor).parameters
    unknown = sorted(options.keys() - parameters.keys())
    if unknown:
        allowed = ", ".join(sorted(parameters)) or "none"
        raise InvalidInputError(
            f"{kind} {name!r} has no option {', '.join(map(repr, unknown))}: "
            f"its options are {allowed}"
        )
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in options
    ]
    if missing:
        raise InvalidInputError(f"{kind} {name!r} needs the option {', '.join(map(repr, missing))}")
    return constructor(**options)
