import pytest
import torch

from mige import InvalidInputError
from mige.normalization import BatchNormalizer, make_normalizer


def test_none_changes_nothing():
    z = torch.randn(5, 3)
    assert torch.equal(make_normalizer("none", 3)(z), z)


def test_sphere_gives_unit_rows_and_leaves_zero_rows_at_zero():
    z = torch.cat([10.0 * torch.randn(5, 3), torch.zeros(1, 3)])
    lengths = make_normalizer("sphere", 3)(z).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))


def test_batch_norm_equals_torchs_without_affine_in_value_gradient_and_statistics():
    ours, theirs = BatchNormalizer(3), torch.nn.BatchNorm1d(3, affine=False)
    ours, theirs = ours.double(), theirs.double()
    for _ in range(3):
        z = (5.0 + 2.0 * torch.randn(8, 3, dtype=torch.float64)).requires_grad_()
        other = z.detach().clone().requires_grad_()
        torch.testing.assert_close(ours(z), theirs(other))
        ours(z).pow(3).sum().backward()
        theirs(other).pow(3).sum().backward()
        torch.testing.assert_close(z.grad, other.grad)
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(z), theirs(z))


def test_a_batch_of_one_row_is_finite():
    normalizer = BatchNormalizer(3)
    assert torch.equal(normalizer(torch.randn(1, 3)), torch.zeros(1, 3))
    assert torch.isfinite(normalizer.variance).all()


def test_an_unknown_name_is_refused():
    with pytest.raises(InvalidInputError, match="normalize='layer' is unknown"):
        make_normalizer("layer", 3)
