import math
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mige import InvalidInputError
from mige.regression import shear


def normals(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(dim, seed):
    return torch.linalg.qr(normals(dim, dim, seed=seed)).Q


def squares(x):
    return (x.square() - 1.0) / math.sqrt(2.0)


def explained_by(signal, before, after):
    """The share of the signal's covariance with z that the shear took out."""
    return 1.0 - ((after * signal).mean() / (before * signal).mean()).item()


def test_linear_dependence_leaves_z_as_it_is():
    x, noise = normals(256, 8), normals(256, 6, seed=1)
    z = x @ normals(8, 6, seed=2) + noise
    result = shear(z, x)
    assert torch.equal(result.values, z)
    assert not bool(result.basis.any())
    assert result.excess.shape == (5,)


@pytest.mark.parametrize(
    ("function", "group", "share"),
    # 15 % of the sine's square is linear, and stays.
    [(squares, 0, 0.9), (lambda x: math.sqrt(2.0) * torch.sin(2.0 * x), 1, 0.7)],
    ids=["square", "sin"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_function_of_single_coordinates_is_taken_out(function, group, share, dtype):
    x, noise = normals(256, 8), normals(256, 8, seed=1)
    z = 0.8 * function(x) + 0.6 * noise
    result = shear(z.to(dtype), x.to(dtype))
    assert result.excess[group] > 10.0
    assert explained_by(function(x), z, result.values.double()) > share
    assert explained_by(noise, z, result.values.double()) < 0.15


def test_rotations_of_x_do_not_hide_products():
    x, noise = normals(512, 8), normals(512, 8, seed=1)
    z = (0.8 * squares(x) + 0.6 * noise) @ orthogonal(8, 2)
    result = shear(z, x @ orthogonal(8, 3))
    assert result.excess[4] > 10.0
    assert explained_by(squares(x) @ orthogonal(8, 2), z, result.values) > 0.9


def test_what_is_left_is_orthogonal_to_the_features_and_they_to_linear_functions():
    x = normals(256, 6)
    z = squares(x) + 0.5 * normals(256, 6, seed=1)
    result = shear(z, x)
    used = result.basis[:, (result.basis != 0).any(0)]
    assert used.shape[1] >= 6
    identity = torch.eye(used.shape[1], dtype=torch.float64)
    torch.testing.assert_close(used.T @ used, identity, rtol=0.0, atol=1e-8)
    linear = torch.cat([torch.ones(256, 1, dtype=torch.float64), x], dim=1)
    assert (linear.T @ used).abs().max() < 1e-8
    assert (used.T @ result.values).abs().max() < 1e-8
    assert (used.T @ result.project_out(normals(256, 3, seed=5))).abs().max() < 1e-8


def test_the_linear_regression_of_z_on_x_stays():
    x = normals(256, 6)
    z = x @ normals(6, 6, seed=4) + squares(x) + 0.5 * normals(256, 6, seed=1)
    centred = x - x.mean(0)
    torch.testing.assert_close(centred.T @ shear(z, x).values, centred.T @ z)


def test_one_group_in_several_hundred_is_used_for_nothing():
    x, z = normals(60, 200, 6, seed=1), normals(60, 200, 5, seed=2)
    spread = (0.2 + x[..., :1].square()).sqrt()  # z given x: mean zero, but a spread of its own
    for sample in (z, spread * z):
        taken = (shear(sample, x).excess > 3.0).double().mean()
        assert taken < 0.02


def test_under_no_dependence_the_excess_has_mean_zero_and_spread_one():
    x, z = normals(60, 200, 6, seed=1), normals(60, 200, 5, seed=2)
    excess = shear(z, x).excess
    assert excess.mean(0).abs().max() < 0.4
    assert 0.75 < excess.std() < 1.25


def test_products_are_left_out_where_they_are_too_many():
    x, z = normals(1000, 35), normals(1000, 1, seed=1)
    assert shear(z, x[:, :34]).excess.shape == (5,)  # 595 products
    assert shear(z, x).excess.shape == (4,)  # 630


def test_a_batch_is_treated_matrix_by_matrix():
    x = normals(2, 1, 128, 4)
    z = torch.stack([squares(x[0]), normals(1, 128, 4, seed=3)]) + 0.3 * normals(
        2, 1, 128, 4, seed=1
    )
    batch, alone = shear(z, x), shear(z[0, 0], x[0, 0])
    torch.testing.assert_close(batch.values[0, 0], alone.values)
    torch.testing.assert_close(batch.excess[0, 0], alone.excess)
    assert torch.equal(batch.values[1], z[1])


def test_affine_maps_of_x_and_z_change_only_the_unit():
    x = normals(256, 5)
    z = squares(x) + 0.3 * normals(256, 5, seed=1)
    result, other = shear(z, x), shear(1e-4 * z, 1e3 + 1e-3 * x)
    torch.testing.assert_close(1e4 * other.values, result.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_extreme_scales_in_float32_are_as_any_other(scale):
    x = normals(128, 3, dtype=torch.float32)
    z = squares(x) + 0.3 * normals(128, 3, seed=1, dtype=torch.float32)
    expected = shear(z, x).values
    torch.testing.assert_close(shear(scale * z, scale * x).values / scale, expected)


def test_too_few_samples_try_no_group():
    x, z = normals(40, 16), normals(40, 16, seed=1)
    result = shear(z, x)  # .75 · 40 − 32 < 16
    assert torch.equal(result.values, z)
    assert result.basis.shape == (40, 0)
    assert result.excess.shape == (0,)


def test_features_in_use_leave_a_quarter_of_the_samples():
    x = normals(100, 16)
    functions = torch.cos(1.2 * x) + torch.sin(1.7 * x) + 3.0 * (0.6 * x).cos() + 3.0 * x.sin()
    result = shear(functions @ normals(16, 1, seed=3), x, gate=0.01)
    assert (result.excess > 0.01).all()  # four groups of 16; .75 · 100 − 17 = 58
    assert (result.basis != 0).any(0).sum() == 48


@pytest.mark.parametrize("n", [1, 2, 5, 33])
def test_any_number_of_samples_has_a_finite_answer(n):
    result = shear(normals(n, 2, seed=1, dtype=torch.float32), normals(n, 2, dtype=torch.float32))
    assert bool(torch.isfinite(result.values).all())


def test_constant_duplicate_and_identical_columns_do_no_harm():
    x = normals(256, 3)
    z = squares(x) + 0.3 * normals(256, 3, seed=1)
    zero = torch.zeros(256, 1, dtype=torch.float64)
    expected = shear(z, x).values
    doubled = shear(torch.cat([z, zero], dim=1), torch.cat([x, x[:, :1], zero], dim=1))
    torch.testing.assert_close(doubled.values[:, :3], expected, rtol=1e-4, atol=1e-4)
    assert not bool(doubled.values[:, 3].any())
    assert torch.equal(shear(z, 0.0 * x).values, z)
    assert not bool(shear(0.0 * z, x).values.any())


@pytest.mark.parametrize("level", [3.3, 1e5 + 0.1])
def test_a_constant_column_is_no_feature_whatever_its_mean_rounds_to(level):
    x, constant = normals(200, 3), torch.full((200, 1), level, dtype=torch.float64)
    z = squares(x) + 0.3 * normals(200, 3, seed=1)
    alone, padded = shear(z, x), shear(z, torch.cat([x, constant], dim=1))
    torch.testing.assert_close(padded.excess, alone.excess)
    torch.testing.assert_close(padded.values, alone.values)


def test_binary_x_is_linear_already():
    x = (normals(256, 5) > 0).double()
    z = x @ normals(5, 5, seed=3) + 0.3 * normals(256, 5, seed=1)
    result = shear(z, x)
    assert bool(torch.isfinite(result.values).all())
    assert torch.equal(result.values, z)


def test_nan_gives_nan():
    x, z = normals(2, 64, 3), normals(2, 64, 3, seed=1)
    z[0, 5, 1] = math.nan
    values = shear(z, x).values
    assert bool(values[0].isnan().any())
    assert bool(torch.isfinite(values[1]).all())


def test_bad_arguments_are_refused_by_name():
    x = normals(64, 3)
    with pytest.raises(InvalidInputError, match=r"gate=0\.0: give a number above 0"):
        shear(x, x, gate=0.0)


def test_nothing_is_read_back_from_the_device():
    """On CUDA each such operation waits for all that was queued before it."""

    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            reads = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
            # The Cholesky factor asks on a CPU, where that costs nothing, and only there.
            assert func not in reads or any(
                frame.filename.endswith("mige/linalg.py") for frame in traceback.extract_stack()
            )
            return func(*args, **(kwargs or {}))

    x, z = normals(64, 3), normals(64, 3, seed=1)
    with Refuse():
        shear(z, x)
