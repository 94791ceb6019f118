"""Invertible maps: the way back, and what each promises."""

import pytest
import torch

from mige.calibration import TRANSFORMS
from mige.calibration.transforms import rotation_matrix


def bijection(name, dim, seed=0):
    return TRANSFORMS[name](dim, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_inverse_leads_back(name, dim):
    rows = torch.randn(3, 50, dim, dtype=torch.double).clamp(-3.5, 3.5)
    there = bijection(name, dim)
    torch.testing.assert_close(there.inverse(there.forward(rows)), rows, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(TRANSFORMS.keys() - {"identity"}))
def test_every_map_but_the_identity_moves_its_rows(name):
    rows = torch.randn(20, 6, dtype=torch.double)
    assert (bijection(name, 6).forward(rows) - rows).abs().max() > 0.5


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_dtype_of_the_rows_is_kept(name):
    assert bijection(name, 4).forward(torch.randn(7, 4)).dtype == torch.float32


def test_mixing_has_condition_thirty():
    matrix = bijection("mixed", 8).forward(torch.eye(8, dtype=torch.double))
    assert torch.linalg.cond(matrix) == pytest.approx(30.0)


def test_a_rotation_is_orthogonal_and_a_function_of_the_seed():
    first, again, other = (
        rotation_matrix(6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first @ first.mT, torch.eye(6, dtype=torch.double))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().max() > 0.1


def test_rotations_prefer_no_direction():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.stack([rotation_matrix(2, generator) for _ in range(2000)])
    # Haar: every entry has mean 0 and variance 1/2; QR without the sign rule has E[entry 00] ≠ 0.
    assert matrices.mean(0).abs().max() < 0.06
    torch.testing.assert_close(matrices.square().mean(0), torch.full((2, 2), 0.5).double(),
                               rtol=0, atol=0.03)  # fmt: skip


@pytest.mark.parametrize("dim", [4, 7])
def test_the_spiral_keeps_norms_and_turns_wide_rows_further(dim):
    rows = torch.randn(30, dim, dtype=torch.double)
    turned = bijection("spiral", dim).forward(rows)
    torch.testing.assert_close(turned.norm(dim=-1), rows.norm(dim=-1))
    row = torch.zeros(1, dim, dtype=torch.double)
    row[0, 0] = dim**0.5  # mean square 1: the angle is 2.8
    turned = bijection("spiral", dim).forward(row) / dim**0.5
    expected = torch.tensor([2.8]).double()
    torch.testing.assert_close(turned[:, 0], expected.cos())
    torch.testing.assert_close(turned[:, dim // 2], expected.sin())
