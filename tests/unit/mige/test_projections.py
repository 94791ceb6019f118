import pytest
import torch

from mige import InvalidInputError, gaussian_projection


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_projection_is_a_function_of_its_seed():
    one = gaussian_projection(8, 4, generator=seeded(3))
    assert torch.equal(one, gaussian_projection(8, 4, generator=seeded(3)))
    assert not torch.equal(one, gaussian_projection(8, 4, generator=seeded(4)))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    gaussian_projection(8, 4, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_squared_lengths_are_kept_on_average():
    # Mean of |xP|²/|x|² over 2000 projections to 4: sd √(2/4)/√2000 = .016.
    x = torch.randn(1, 10)
    generator = seeded(0)
    ratios = [
        float((x @ gaussian_projection(10, 4, generator=generator)).norm() / x.norm()) ** 2
        for _ in range(2000)
    ]
    assert sum(ratios) / 2000 == pytest.approx(1.0, abs=0.08)


def test_widths_below_one_are_refused():
    with pytest.raises(InvalidInputError, match="dim_out=0"):
        gaussian_projection(3, 0, generator=seeded(0))
