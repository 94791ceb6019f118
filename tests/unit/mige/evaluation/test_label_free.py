import pytest
import torch

from mige import InvalidInputError, rank_me


def test_an_orthonormal_embedding_has_full_rank():
    q = torch.linalg.qr(torch.randn(200, 16, dtype=torch.float64)).Q
    assert rank_me(q) == pytest.approx(16.0, rel=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_collapsed_embedding_has_the_rank_it_collapsed_to(rank):
    q = torch.linalg.qr(torch.randn(200, 16, dtype=torch.float64)).Q
    basis = torch.linalg.qr(torch.randn(32, 16, dtype=torch.float64)).Q.T
    assert rank_me(q[:, :rank] @ basis[:rank]) == pytest.approx(rank, rel=1e-3)


def test_agrees_with_the_singular_values():
    x = torch.randn(300, 8) * torch.logspace(0, -3, 8)
    share = torch.linalg.svdvals(x.double())
    share = share / share.sum() + 1e-7
    assert rank_me(x) == pytest.approx(float((-(share * share.log()).sum()).exp()), rel=1e-6)


def test_zeros_are_finite():
    assert rank_me(torch.zeros(5, 3)) == pytest.approx(1.0, abs=1e-4)


def test_rows_must_be_a_matrix():
    with pytest.raises(InvalidInputError, match="embeddings has shape"):
        rank_me(torch.zeros(5))
