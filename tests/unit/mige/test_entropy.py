import pytest
import torch

from mige import InvalidInputError, entropy_surrogate, make_score_estimator


@pytest.mark.parametrize("a", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("dim", [2, 16])
def test_the_gradient_in_a_scale_is_the_width_over_the_scale(a, dim):
    # z = a w: H(z) = H(w) + D ln a. The authors' helper of this name has the opposite sign.
    scale = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    z = scale * (torch.randn(64, dim, dtype=torch.float64) ** 3)
    # Centred, since the score's mean is zero and the identity is about z − m.
    z = z - z.mean(0)
    entropy_surrogate(z, make_score_estimator().score(z.detach())).backward()
    assert scale.grad.item() == pytest.approx(dim / a, rel=1e-5)


def test_the_exact_score_gives_the_gradient_of_a_normals_entropy():
    log_std = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(20000, 3, dtype=torch.float64)
    z = log_std.exp() * w
    entropy_surrogate(z, -z).backward()
    # dH/d log σ = 1; the mean of w² has sd √(2/20000) = .01.
    torch.testing.assert_close(log_std.grad, torch.ones(3).double(), rtol=0, atol=0.05)


def test_no_gradient_flows_through_the_score():
    z = torch.randn(5, 2, requires_grad=True)
    score = (3.0 * z).requires_grad_()
    entropy_surrogate(z, score).backward()
    torch.testing.assert_close(z.grad, -score.detach() / 5)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InvalidInputError, match=r"\(4, 2\) and score \(4, 3\)"):
        entropy_surrogate(torch.zeros(4, 2), torch.zeros(4, 3))
