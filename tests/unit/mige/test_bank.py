import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mige import InvalidInputError, make_score_estimator
from mige.bank import SampleBank
from mige.drift import DIAGNOSTICS


def filled(bank, batches):
    for batch in batches:
        enlarged = bank.enlarge(batch)
    return enlarged


def test_the_first_batch_is_alone_and_nothing_is_told_of_drift():
    batch = torch.randn(6, 3)
    enlarged = SampleBank(10, 3).enlarge(batch)
    assert torch.equal(enlarged.rows, batch)
    assert enlarged.diagnostics.keys() == set(DIAGNOSTICS)
    assert all(value == 0 for value in enlarged.diagnostics.values())


def test_the_batch_comes_first_unchanged_and_the_oldest_rows_fall_out():
    bank = SampleBank(
        10, 2, num_fixed=1
    )  # the fixed column is never matched: it shows whose is whose
    batches = [torch.cat([torch.full((6, 1), float(t)), torch.randn(6, 1)], 1) for t in range(4)]
    rows = filled(bank, batches).rows
    assert torch.equal(rows[:6], batches[3])
    assert rows[:, 0].tolist() == [3.0] * 6 + [2.0] * 6 + [1.0] * 4
    assert len(bank) == 10
    assert bank.ages.tolist() == [1] * 6 + [2] * 4


def test_rows_are_detached_and_a_batch_larger_than_the_bank_fills_it():
    bank = SampleBank(4, 2)
    enlarged = bank.enlarge(torch.randn(9, 2, requires_grad=True))
    assert not enlarged.rows.requires_grad
    assert len(bank) == 4
    assert bank.enlarge(torch.randn(9, 2)).rows.shape == (13, 2)


def test_nothing_is_stored_in_eval_mode():
    bank = SampleBank(8, 2)
    bank.enlarge(torch.randn(4, 2))
    bank.eval()
    before = bank.rows.clone()
    assert bank.enlarge(torch.randn(4, 2)).rows.shape == (8, 2)
    assert torch.equal(bank.rows, before)
    assert len(bank) == 4


def test_a_state_carries_rows_ages_and_how_many_there_are():
    bank, other = SampleBank(20, 3), SampleBank(20, 3)
    filled(bank, torch.randn(2, 7, 3))
    other.load_state_dict(bank.state_dict())
    assert len(other) == 14
    batch = torch.randn(7, 3)
    torch.testing.assert_close(other.enlarge(batch).rows, bank.enlarge(batch).rows)


def test_loading_an_empty_state_empties_the_bank():
    bank = SampleBank(20, 3)
    bank.enlarge(torch.randn(7, 3))
    bank.load_state_dict(SampleBank(20, 3).state_dict())
    assert len(bank) == 0
    assert len(bank.enlarge(torch.randn(7, 3)).rows) == 7


def test_shapes_alone_decide_so_that_nothing_waits_for_a_device():
    # A fake tensor has no values: asking for one raises.
    with FakeTensorMode():
        bank = SampleBank(200, 6, num_fixed=3).to("cuda")
        enlarged = filled(bank, [torch.empty(50, 6, device="cuda") for _ in range(3)])
    assert enlarged.rows.shape == (150, 6)
    assert all(value.shape == () for value in enlarged.diagnostics.values())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SampleBank(0, 3), "capacity=0"),
        (lambda: SampleBank(5, 0), "dim=0"),
        (lambda: SampleBank(5, 3, num_fixed=3), "num_fixed=3 with dim=3"),
        (lambda: SampleBank(5, 3, num_fixed=-1), "num_fixed=-1"),
        (lambda: SampleBank(5, 3).enlarge(torch.randn(4, 2)), "batch has 2 columns"),
        (lambda: SampleBank(5, 3).enlarge(torch.randn(0, 3)), "batch has shape"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(InvalidInputError, match=message):
        build()


def toy_error(rho, seed, *, capacity, per_step=0.0):
    """Error of dI/dρ for batches of 32 pairs in 32 dimensions; z grows and turns at every step."""
    generator = torch.Generator().manual_seed(seed)
    dim, size, steps = 32, 32, 15
    plane = torch.kron(torch.eye(dim // 2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    turn = torch.matrix_exp(per_step * plane) * (1.0 + per_step)
    bank = SampleBank(capacity, 2 * dim, num_fixed=dim) if capacity else None
    frame = torch.eye(dim)
    for _ in range(steps):
        x, noise = torch.randn(2, size, dim, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        rows = torch.cat([x, y @ frame], dim=1)
        if bank is not None:
            rows = bank.enlarge(rows).rows
        derivative = (x - rho / math.sqrt(1 - rho**2) * noise) @ frame
        last = rows, derivative
        frame = frame @ turn
    rows, derivative = last
    gradient = make_score_estimator().information_gradient(rows[:, :dim], rows[:, dim:]).z[:size]
    truth = dim * rho / (1 - rho**2)
    return ((gradient * derivative).sum(-1).mean().item() - truth) / truth


@pytest.mark.statistical
@pytest.mark.parametrize(("per_step", "largest"), [(0.0, 0.05), (0.03, 0.08)])
def test_a_bank_repairs_small_batches_although_the_embedding_drifts(per_step, largest):
    seeds = range(6)
    errors = [toy_error(0.6, seed, capacity=448, per_step=per_step) for seed in seeds]
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < largest
    assert abs(toy_error(0.6, 0, capacity=0)) > 0.5
