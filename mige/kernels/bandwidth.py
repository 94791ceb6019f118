"""Rules that choose a kernel's bandwidth from the distances between samples."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mige.checks import check_positive
from mige.errors import InvalidInputError

BANDWIDTH_RULES = ("median",)


class Bandwidth(NamedTuple):
    """A bandwidth, in units of the samples, and how it came about."""

    value: Float[Tensor, ""]  # above 0 always
    fell_back: Bool[Tensor, ""]  # the rule gave 0 and the mean non-zero distance took its place
    degenerate: Bool[Tensor, ""]  # all samples are identical: `value` is 1 and means nothing


def median_bandwidth(squared: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The median heuristic of the MIGE authors' code.

    The element of rank n²//2 from the top of the n² distances over *ordered* pairs, the n zero
    self-distances included; no multiplier. Zero when about half of the pairs are equal.

    Args:
        squared: squared distances between the samples.

    Source:
        Wen et al., ICLR 2020 (arXiv 2005.01123), the published code `heuristic_kernel_width`.
    """
    upper_half = squared.flatten().topk(max(squared.numel() // 2, 1), sorted=False)
    return upper_half.values.amin().sqrt()


def choose_bandwidth(
    rule: str | float, squared: Float[Tensor, "n n"], *, scale: float = 1.0
) -> Bandwidth:
    """Apply a rule of `BANDWIDTH_RULES` (times `scale`), or take a fixed number as it is.

    Where the rule gives 0 (more than half of the pairs are equal), the mean of the non-zero
    distances takes its place; where there is none, all samples are identical.

    Args:
        rule: "median", or a fixed bandwidth in the units of the samples.
        squared: squared distances between the samples.
        scale: multiplies what a rule gives; a fixed bandwidth is not scaled.
    """
    spread = squared.amax() > 0
    if isinstance(rule, str):
        value = median_bandwidth(squared)
        fell_back = (value == 0) & spread
        nonzero = (squared > 0).sum().clamp(min=1)
        value = scale * torch.where(fell_back, squared.sqrt().sum() / nonzero, value)
    else:
        value = squared.new_tensor(rule)
        fell_back = torch.zeros_like(spread)
    return Bandwidth(torch.where(spread, value, 1.0), fell_back, ~spread)


def check_bandwidth(rule: str | float) -> str | float:
    """Return `rule` if it is the name of a rule or a positive number.

    Raises:
        InvalidInputError: it is neither.
    """
    if not isinstance(rule, str):
        return check_positive("bandwidth", rule)
    if rule not in BANDWIDTH_RULES:
        raise InvalidInputError(
            f"bandwidth={rule!r} is unknown: give one of {BANDWIDTH_RULES} or a positive number"
        )
    return rule
