"""Encoders by name, and their files."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from mige.encoders.dim_conv import DimConv
from mige.encoders.mlp import MLP
from mige.encoders.resnet import resnet18
from mige.registry import build_from_registry

ENCODERS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"mlp": MLP, "dim_conv": DimConv, "resnet18": resnet18}
)
"""Each entry is called with `input_shape`, `out_dim` and its own options, all by keyword."""


def make_encoder(kind: str, **options: object) -> nn.Module:
    """Build an encoder with random weights: standardised images (n, C, H, W) → (n, out_dim).

    Args:
        kind: a name in `ENCODERS`.
        options: `input_shape`, `out_dim` and the options of that encoder.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable.
    """
    return build_from_registry(ENCODERS, "encoder", kind, options)


__all__ = ["ENCODERS", "MLP", "DimConv", "make_encoder", "resnet18"]
