"""The entropy gradient in every weight of an invertible network: training's own quantity, exactly.

z = f(w) = W₃ a(W₂ a(W₁w + b₁) + b₂) + b₃ is invertible, so H(z) = H(w) + E log|det ∂f/∂w| and
∂H/∂ψ = E ∂ log|det ∂f/∂w| / ∂ψ needs no score at all. A derivative in one number averages errors
away; the cosine with this vector is what an optimiser feels.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from mige.checks import check_choice, check_count

_LAYERS = 3
_SPREAD = 0.5  # weights are I + 0.5 R/√d with R ~ N(0, 1): condition numbers of about 3 to 10
_BIAS = 0.1
_LEAK = 0.1  # slope of the activation at −∞; it is 1 at +∞
_CENTRES = 10
_CLUSTER_STD = 0.33  # around centres drawn from N(0, I)
_TRUTH_ENTRIES = 2**22  # rows × width of the sample behind the truth
_TRUTH_ROWS = (2**13, 2**16)  # the fewest and the most
_TRUTH_CHUNK = 2**12
# Streams of their own: a seed shared with the samples would make centres, weights and rows alike.
_WEIGHT_STREAM, _CENTRE_STREAM, _TRUTH_STREAM = (k * 10**9 for k in (1, 2, 3))

SOURCES = ("gauss", "clusters")


class _Layers(NamedTuple):
    weights: Float[Tensor, "*b layers d d"]
    biases: Float[Tensor, "*b layers d"]


@dataclass(frozen=True, kw_only=True)
class NetworkEntropy:
    """∂H(f(w))/∂ψ for all weights and biases ψ of a three-layer network, d(3d + 3) numbers.

    The activation is a smooth leaky rectifier, a(v) = 0.1v + 0.9 (softplus(v) − log 2).

    Attributes:
        source: the distribution of w: "gauss", N(0, I), or "clusters", ten of them with standard
            deviation 0.33 around centres drawn from N(0, I).
        network: seed of the weights (and centres).
    """

    source: str = "gauss"
    network: int = 1

    def __post_init__(self) -> None:
        check_choice("source", self.source, SOURCES)

    def parameter(self, d: int) -> Float[Tensor, " k"]:
        """The weights and biases as one vector, float64; the same each time."""
        check_count("d", d)
        generator = _stream(_WEIGHT_STREAM, self.network)
        weights = torch.randn(_LAYERS, d, d, generator=generator, dtype=torch.double)
        biases = _BIAS * torch.randn(_LAYERS, d, generator=generator, dtype=torch.double)
        weights = torch.eye(d, dtype=torch.double) + _SPREAD * weights / math.sqrt(d)
        return torch.cat([weights.flatten(), biases.flatten()])

    def inputs(
        self, n: int, d: int, generator: torch.Generator, *, reflected: bool = False
    ) -> Float[Tensor, "n d"]:
        """Draw n rows w, float64, on the CPU; independent unless `reflected`.

        Args:
            n: rows; even if `reflected`.
            d: width.
            generator: a CPU generator.
            reflected: pair each row with its mirror image in the centre of its cluster: the same
                distribution, and averages over all rows that scatter less.
        """
        rows = n // 2 if reflected else check_count("n", n)
        noise = torch.randn(rows, d, generator=generator, dtype=torch.double)
        if reflected:
            noise = torch.cat([noise, -noise])
        if self.source == "gauss":
            return noise
        of_centres = _stream(_CENTRE_STREAM, self.network)
        centres = torch.randn(_CENTRES, d, generator=of_centres, dtype=torch.double)
        which = torch.randint(_CENTRES, (rows,), generator=generator)
        return centres[which.repeat(2) if reflected else which] + _CLUSTER_STD * noise

    def embed(
        self, inputs: Float[Tensor, "*b n d"], parameter: Float[Tensor, "*b k"]
    ) -> Float[Tensor, "*b n d"]:
        """The network's output f(w), differentiable in both arguments."""
        return _forward(inputs, parameter)[0]

    def log_det(
        self, inputs: Float[Tensor, "*b n d"], parameter: Float[Tensor, "*b k"]
    ) -> Float[Tensor, "*b n"]:
        """log|det ∂f/∂w| at each row, differentiable in both arguments."""
        return _forward(inputs, parameter)[1]

    def truth(self, d: int) -> Float[Tensor, " k"]:
        """∂H/∂ψ in nats, float64, from 8,192 to 65,536 rows (fewer for wider ones).

        Its own relative error is below 1.5 % of its norm up to d = 64: small beside that of any
        estimator from n rows, whose irreducible part is √(rows / n) times larger.
        """
        return _network_truth(self, d).clone()

    def from_inputs(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, " k"]:
        """The gradient of the mean log-determinant over given rows: the floor of any estimator.

        An estimator that satisfied Stein's identity on these rows for every function gives exactly
        this; what it lacks to `truth` is the scatter of the rows.
        """
        parameter = self.parameter(inputs.shape[-1]).requires_grad_()
        mean = self.log_det(inputs, parameter).mean()
        return torch.autograd.grad(mean, parameter)[0]


NETWORKS: Mapping[str, NetworkEntropy] = MappingProxyType(
    {
        "network": NetworkEntropy(source="gauss"),
        "clustered_network": NetworkEntropy(source="clusters"),
    }
)
"""Entropy gradients in a whole network, by name."""


@functools.lru_cache(maxsize=32)
def _network_truth(problem: NetworkEntropy, d: int) -> Float[Tensor, " k"]:
    fewest, most = _TRUTH_ROWS
    rows = min(most, max(fewest, _TRUTH_ENTRIES // check_count("d", d)))
    generator = _stream(_TRUTH_STREAM, problem.network)
    chunks = rows // _TRUTH_CHUNK
    parts = [
        problem.from_inputs(problem.inputs(_TRUTH_CHUNK, d, generator, reflected=True))
        for _ in range(chunks)
    ]
    return torch.stack(parts).mean(0)


def _stream(which: int, network: int) -> torch.Generator:
    return torch.Generator().manual_seed(which + network)


def _forward(inputs: Tensor, parameter: Tensor) -> tuple[Tensor, Tensor]:
    """f(w) and log|det ∂f/∂w|."""
    layers = _unpack(parameter, inputs.shape[-1])
    rows = inputs
    log_det = torch.linalg.slogdet(layers.weights).logabsdet.sum(-1)[..., None]
    for index in range(_LAYERS):
        rows = rows @ layers.weights[..., index, :, :].mT + layers.biases[..., index, None, :]
        if index < _LAYERS - 1:
            slope = _LEAK + (1.0 - _LEAK) * torch.sigmoid(rows)
            log_det = log_det + slope.log().sum(-1)
            rows = _LEAK * rows + (1.0 - _LEAK) * (softplus(rows) - math.log(2.0))
    return rows, log_det


def _unpack(parameter: Tensor, d: int) -> _Layers:
    batch, size = parameter.shape[:-1], _LAYERS * d * d
    return _Layers(
        parameter[..., :size].reshape(*batch, _LAYERS, d, d),
        parameter[..., size:].reshape(*batch, _LAYERS, d),
    )
