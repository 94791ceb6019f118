import math

import pytest
import torch

from mige.kernels import Matern32Kernel, Matern52Kernel


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Matern32Kernel(2.0), (1.0 + 1.5 * math.sqrt(3.0)) * math.exp(-1.5 * math.sqrt(3.0))),
        (
            Matern52Kernel(2.0),
            (1.0 + 1.5 * math.sqrt(5.0) + 3.75) * math.exp(-1.5 * math.sqrt(5.0)),
        ),
    ],
)
def test_the_value_at_one_and_a_half_bandwidths_is_the_textbook_one(kernel, expected):
    assert kernel.gram_of(torch.tensor([[9.0]], dtype=torch.float64)).item() == pytest.approx(
        expected, rel=1e-12
    )
