"""Checks of arguments: each raises `InvalidInputError` naming the argument, its value, the remedy.

Shapes are also types (jaxtyping) and tests verify them; the checks here are for what arrives at run
time from outside: options of estimators, numbers of a configuration, tensors of a caller.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from torch import Tensor

from mige.errors import InvalidInputError


def check_number(name: str, value: object) -> float:
    """Return `value` as a float if it is a finite number and not a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInputError(f"{name}={value!r}: give a finite number")
    return float(value)


def check_positive(name: str, value: object, *, zero_allowed: bool = False) -> float:
    """Return `value` as a float if it is finite and above zero (or zero, where allowed)."""
    bound = "at least 0" if zero_allowed else "above 0"
    number = check_number(name, value)
    if number < 0 or (number == 0 and not zero_allowed):
        raise InvalidInputError(f"{name}={value!r}: give a number {bound}")
    return number


def check_fraction(name: str, value: object) -> float:
    """Return `value` as a float if it lies in (0, 1]."""
    fraction = check_positive(name, value)
    if fraction > 1.0:
        raise InvalidInputError(f"{name}={value!r}: give a number in (0, 1]")
    return fraction


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name}={value!r}: give True or False")
    return value


def check_count(name: str, value: object) -> int:
    """Return `value` if it is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInputError(f"{name}={value!r}: give an integer of at least 1")
    return value


def check_counts(name: str, values: object) -> tuple[int, ...]:
    """Return `values` as a tuple if each is an integer of at least 1."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidInputError(f"{name}={values!r}: give a list of integers of at least 1")
    return tuple(check_count(f"{name}[{i}]", value) for i, value in enumerate(values))


def check_options(name: str, value: object) -> dict[str, object]:
    """Return `value` as a new dict if it maps names of options to their values."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidInputError(f"{name}={value!r}: give a mapping of option names to values")
    return dict(value)


def check_choice(name: str, value: object, allowed: Collection[str]) -> str:
    """Return `value` if it is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        _refuse_choice(name, value, allowed)
    return value


def check_rows(name: str, tensor: Tensor) -> Tensor:
    """Return `tensor` if it is a floating-point matrix with at least one row and one column."""
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(tensor.shape)}: give a matrix (rows, features), neither empty"
        )
    return _check_floating(name, tensor)


def check_samples(name: str, tensor: Tensor) -> Tensor:
    """Return `tensor` if it is floating point, (..., rows, features), with nothing empty."""
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise InvalidInputError(
            f"{name} has shape {tuple(tensor.shape)}: give (..., rows, features), none of them 0"
        )
    return _check_floating(name, tensor)


def _check_floating(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise InvalidInputError(f"{name} has dtype {tensor.dtype}: convert it to floating point")
    return tensor


def _refuse_choice(name: str, value: object, allowed: Collection[str]) -> NoReturn:
    options = ", ".join(repr(option) for option in sorted(allowed))
    raise InvalidInputError(f"{name}={value!r} is unknown: choose one of {options}")
