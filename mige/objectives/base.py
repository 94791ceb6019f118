"""What an objective is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class ObjectiveOutput(NamedTuple):
    """What to minimise, and what a person needs to judge it."""

    loss: Float[Tensor, ""]
    info: Mapping[str, Float[Tensor, ""]]  # for logs only, detached: effective_rank, bandwidth, ...


class Objective(nn.Module, ABC):
    """Scores a batch of images and what the encoder made of them; minimise `loss`.

    An objective draws its noise from torch's global generator, as dropout does, and gathers across
    data-parallel workers itself; the average of the workers' gradients is the right one.

    Attributes:
        normalizer: makes the published embedding from the encoder's output; export it with the
            encoder.
    """

    normalizer: nn.Module

    @abstractmethod
    def forward(self, x: Tensor, encoder_output: Tensor) -> ObjectiveOutput:
        """Compute the loss of one batch.

        Args:
            x: the images that the encoder saw, (n, C, H, W), floating point.
            encoder_output: the encoder's output for them, (n, out_dim), carrying the gradient.
        """
