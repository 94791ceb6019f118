"""What stands between an encoder's output and its embedding.

A normaliser belongs to the published encoder: training and embedding apply the same one.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mige.checks import check_choice, check_count
from mige.gather import sum_over_workers

_EPSILON = 1e-5
_MOMENTUM = 0.1


class NoNormalizer(nn.Module):
    """Leaves the encoder's output as it is."""

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return `z`."""
        return z


class SphereNormalizer(nn.Module):
    """Scales each row to unit length; a zero row stays zero."""

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Z / |z|."""
        return nn.functional.normalize(z, dim=1)


class BatchNormalizer(nn.Module):
    """Scales each feature to mean 0 and variance 1, without learnt scale or shift.

    Training uses the statistics of the batch (of all workers' rows if `across_workers`), with
    gradients through them; evaluation uses their running mean and variance.

    Args:
        dim: width of the rows.
        across_workers: count all data-parallel workers' rows as one batch.
    """

    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " d"]

    def __init__(self, dim: int, *, across_workers: bool = True) -> None:
        super().__init__()
        self.across_workers = across_workers
        self.register_buffer("mean", torch.zeros(check_count("dim", dim)))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """(z − mean) / √(variance + ε)."""
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = self._batch_statistics(z)
        return (z - mean) / torch.sqrt(variance + _EPSILON)

    def _batch_statistics(self, z: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        total = sum_over_workers if self.across_workers else _unchanged
        count = total(z.new_full((), float(len(z))))  # unlike a copied one, nobody waits for it
        mean = total(z.sum(0)) / count
        variance = total((z - mean).square().sum(0)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1.0).clamp(min=1.0)
            self.mean.lerp_(mean.to(self.mean), _MOMENTUM)
            self.variance.lerp_(unbiased.to(self.variance), _MOMENTUM)
        return mean, variance


def _unchanged(local: Tensor) -> Tensor:
    return local


NORMALIZERS: Mapping[str, Callable[[int, bool], nn.Module]] = MappingProxyType(
    {
        "none": lambda _dim, _across_workers: NoNormalizer(),
        "batch_norm": lambda dim, across: BatchNormalizer(dim, across_workers=across),
        "sphere": lambda _dim, _across_workers: SphereNormalizer(),
    }
)


def make_normalizer(name: str, dim: int, *, across_workers: bool = True) -> nn.Module:
    """Build a normaliser for rows of width `dim`.

    Raises:
        InvalidInputError: the name is not in `NORMALIZERS`.
    """
    return NORMALIZERS[check_choice("normalize", name, NORMALIZERS.keys())](dim, across_workers)
