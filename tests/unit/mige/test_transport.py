import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mige import InvalidInputError
from mige.transport import normality_excess, transport_margins


def normals(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cubes(*shape, seed=0):
    return normals(*shape, seed=seed) ** 3


def test_normal_columns_are_only_standardised():
    x = 5.0 + 3.0 * normals(256, 6)
    transport = transport_margins(x)
    assert torch.equal(transport.weights, torch.zeros(6, dtype=torch.float64))
    expected = (x - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(transport.values, expected)
    torch.testing.assert_close(transport.slopes, (1.0 / x.std(0, correction=0)).expand_as(x))


@pytest.mark.parametrize(
    ("bend", "unbend_slope"),
    [
        (lambda v: v**3, lambda v: 1.0 / (3.0 * v**2)),
        (torch.exp, lambda v: torch.exp(-v)),
        (torch.special.ndtr, lambda v: math.sqrt(2.0 * math.pi) * torch.exp(v**2 / 2.0)),
    ],
    ids=["cube", "exp", "normal_cdf"],
)
def test_bent_normals_come_back_with_the_slope_of_the_inverse(bend, unbend_slope):
    v = normals(4096, 3)
    transport = transport_margins(bend(v), knots=40)
    assert torch.equal(transport.weights, torch.ones(3, dtype=torch.float64))
    inner = (v.abs() > 0.1) & (v.abs() < 2.0)  # a cube's inverse is not smooth at 0
    assert (transport.values - v)[inner].abs().mean() < 0.03
    ratio = (transport.slopes / unbend_slope(v))[inner]
    assert abs(ratio.mean() - 1.0) < 0.04


def test_values_grow_with_the_samples_and_slopes_are_their_derivative():
    x = cubes(256, 2).sort(0).values
    transport = transport_margins(x)
    assert bool((transport.values.diff(dim=0) > 0).all())
    assert bool((transport.slopes > 0).all())
    # Inside one interval of the knots the secant of close samples is the derivative, but for the
    # slopes' shrinkage of at most 1/2k, with k = 3.7 samples in the narrowest interval.
    secant = transport.values.diff(dim=0) / x.diff(dim=0)
    ratio = (transport.slopes[1:] + transport.slopes[:-1]) / 2.0 / secant
    assert 0.94 < ratio[20:-20].median() < 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_beyond_the_outer_knots_it_is_continued_by_the_slope_there(sign):
    x = (sign * normals(256, 20).exp()).sort(0).values  # steep at one end, flat at the other
    transport = transport_margins(x)
    for outer, inner in ((0, 1), (-1, -2)):
        secant = transport.values[outer] - transport.values[inner]
        ratio = transport.slopes[outer] * (x[outer] - x[inner]) / secant
        assert 0.7 < ratio.median() < 1.0  # the slopes are shrunk


def test_mildly_non_normal_columns_are_mapped_in_part():
    x = normals(256, 60)
    weights = transport_margins(x + 0.1 * x.square()).weights
    assert ((weights > 0.05) & (weights < 0.95)).double().mean() > 0.3


def test_turning_the_samples_round_turns_the_map_round():
    x = normals(256, 3).exp()
    transport, turned = transport_margins(x), transport_margins(-x)
    torch.testing.assert_close(turned.values, -transport.values)
    torch.testing.assert_close(turned.slopes, transport.slopes)


def test_affine_maps_of_the_samples_change_nothing_but_the_slopes_unit():
    x = cubes(128, 3)
    transport, other = transport_margins(x), transport_margins(1e4 + 1e-3 * x)
    torch.testing.assert_close(other.values, transport.values, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other.slopes, 1e3 * transport.slopes, rtol=1e-5, atol=0.0)


def test_each_matrix_of_a_batch_and_each_column_is_mapped_by_itself():
    x = torch.stack([cubes(100, 4), normals(100, 4)]).reshape(2, 1, 100, 4)
    transport = transport_margins(x)
    alone = transport_margins(x[0, 0, :, 2:3])
    torch.testing.assert_close(transport.values[0, 0, :, 2:3], alone.values)
    torch.testing.assert_close(transport.slopes[0, 0, :, 2:3], alone.slopes)
    assert transport.weights.shape == (2, 1, 4)


def test_float32_agrees_with_float64():
    x = cubes(256, 4)
    double, single = transport_margins(x), transport_margins(x.float())
    torch.testing.assert_close(single.values.double(), double.values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(single.slopes.double(), double.slopes, rtol=5e-3, atol=1e-3)


def test_few_samples_are_only_standardised():
    assert torch.equal(transport_margins(cubes(31, 2)).weights, torch.zeros(2, dtype=torch.float64))
    assert bool((transport_margins(cubes(64, 2)).weights > 0).all())


def test_a_margin_with_an_atom_is_only_standardised():
    x = torch.cat([normals(256, 1).relu(), cubes(256, 1)], dim=1)
    assert transport_margins(x).weights.tolist() == [0.0, 1.0]


def test_rounded_samples_are_mapped_all_the_same():
    x = (20.0 * cubes(512, 2)).round() / 20.0
    transport = transport_margins(x)
    assert bool(torch.isfinite(transport.values).all() & torch.isfinite(transport.slopes).all())
    assert bool((transport.slopes > 0).all())


@pytest.mark.parametrize("value", [0.0, 3e4])
def test_a_constant_column_gives_zeros_and_slope_one(value):
    x = torch.cat([torch.full((64, 1), value, dtype=torch.float64), cubes(64, 1)], dim=1)
    transport = transport_margins(x)
    assert torch.equal(transport.values[:, 0], torch.zeros(64, dtype=torch.float64))
    assert torch.equal(transport.slopes[:, 0], torch.ones(64, dtype=torch.float64))
    assert transport.weights[0] == 0.0


@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_samples_has_a_finite_answer(n):
    transport = transport_margins(normals(n, 3, dtype=torch.float32))
    assert bool(torch.isfinite(transport.values).all() & torch.isfinite(transport.slopes).all())


def test_an_outlier_moves_only_itself():
    x = normals(256, 1)
    x[17] = 1e6
    transport = transport_margins(x)
    others = torch.arange(256) != 17
    assert transport.weights.item() == 1.0
    assert transport.values[others].abs().max() < 4.0
    assert transport.values[others].std() > 0.8


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_in_float32_are_as_any_other(scale):
    x = cubes(128, 2).float()
    transport, scaled = transport_margins(x), transport_margins(scale * x)
    torch.testing.assert_close(scaled.values, transport.values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scaled.slopes * scale, transport.slopes, rtol=1e-2, atol=1e-2)


def test_nan_stays_in_its_column():
    x = cubes(64, 2)
    x[3, 0] = math.nan
    transport = transport_margins(x)
    assert bool(transport.values[:, 0].isnan().all())
    assert bool(torch.isfinite(transport.values[:, 1]).all())


@pytest.mark.parametrize("n", [32, 256, 1024])
def test_one_normal_column_in_a_hundred_looks_not_normal(n):
    ordered = normals(n, 4000 if n < 1000 else 2000).sort(0).values
    share = (normality_excess(ordered) > 2.326).double().mean()
    assert 0.005 < share < 0.016


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(InvalidInputError, match="knots=3: give at least 4"):
        transport_margins(torch.randn(64, 2), knots=3)
    with pytest.raises(InvalidInputError, match="samples has shape"):
        transport_margins(torch.randn(0, 2))


def test_nothing_is_read_back_from_the_device():
    """On CUDA each such operation waits for all that was queued before it."""

    class Refuse(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in {
                torch.ops.aten._local_scalar_dense.default,
                torch.ops.aten.nonzero.default,
            }
            return func(*args, **(kwargs or {}))

    x = cubes(64, 3)
    with Refuse():
        transport_margins(x)
