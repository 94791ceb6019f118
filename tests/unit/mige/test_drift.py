import pytest
import torch

from mige.drift import DIAGNOSTICS, match_moments

BATCH, AGES, DIM = 64, 14, 16
NUM_AGES = torch.arange(AGES + 1).repeat_interleave(BATCH)


def still():
    """Rows of a distribution with correlated features of very different scales."""
    mixing = torch.randn(DIM, DIM).double() * torch.logspace(-2, 2, DIM).double()
    return torch.randn(len(NUM_AGES), DIM).double() @ mixing + 5.0


def matched(rows, **options):
    return match_moments(rows, NUM_AGES, num_current=BATCH, **options)


def test_current_rows_and_fixed_features_stay_as_they_are():
    rows = still() * torch.exp(0.1 * NUM_AGES)[:, None]
    answer = matched(rows, num_fixed=4).rows
    assert torch.equal(answer[:BATCH], rows[:BATCH])
    assert torch.equal(answer[:, :4], rows[:, :4])


def test_where_nothing_drifts_rows_hardly_move_and_shifts_are_about_one():
    rows = still()
    answer = matched(rows, num_fixed=4)
    moved = (answer.rows - rows).square().mean(0) / rows.var(0)
    assert moved.max() < 0.01
    assert list(answer.diagnostics) == list(DIAGNOSTICS)
    for name, value in answer.diagnostics.items():
        assert 0.5 < value < 1.6, name


@pytest.mark.parametrize("growth", [-0.1, -0.03, 0.01, 0.1])
def test_a_scale_that_grows_by_the_same_share_each_step_is_undone(growth):
    rows = still() - 5.0
    drifted = rows * torch.exp(-growth * NUM_AGES)[:, None]
    answer = matched(drifted)
    ratio = answer.rows[BATCH:].std(0) / rows[BATCH:].std(0)
    assert ratio.log().mean().abs() < 0.02
    assert ratio.log().abs().max() < 0.15
    assert answer.diagnostics["bank_scale_shift"] > 1.3
    assert answer.diagnostics["bank_misfit"] < 1.6


def test_each_features_own_growth_is_undone():
    rows = still() - 5.0
    growth = torch.linspace(-0.1, 0.1, DIM)
    ratio = matched(rows * torch.exp(-growth * NUM_AGES[:, None])).rows.std(0) / rows.std(0)
    assert ratio.log().abs().max() < 0.2


def test_a_mean_that_moves_on_a_line_is_undone():
    rows = still()
    steps = rows.std(0) * torch.linspace(-0.1, 0.1, DIM)
    answer = matched(rows + steps * (20 - NUM_AGES[:, None]))
    error = (answer.rows.mean(0) - (rows.mean(0) + 20 * steps)) / rows.std(0)
    assert error.abs().max() < 0.15
    assert answer.diagnostics["bank_mean_shift"] > 3


def test_a_sudden_change_is_mostly_undone_and_told_as_misfit():
    rows = still()
    past = (NUM_AGES > 0)[:, None]
    changed = torch.where(past, 0.5 * rows - rows.std(0), rows)
    answer = matched(changed)
    assert answer.diagnostics["bank_misfit"] > 2
    error = (answer.rows[BATCH:].mean(0) - rows[:BATCH].mean(0)) / rows.std(0)
    assert error.square().mean().sqrt() < 0.3
    ratio = answer.rows[BATCH:].std(0) / rows[:BATCH].std(0)
    assert ratio.log().mean().abs() < 0.15


def test_a_dependence_that_turns_is_turned_back():
    x, noise = torch.randn(2, len(NUM_AGES), DIM).double()
    weight, change = torch.randn(2, DIM, DIM).double() / DIM**0.5
    z = x @ weight + 0.1 * noise
    drifted = z + 0.05 * NUM_AGES[:, None] * (x @ change)
    answer = matched(torch.cat([x, drifted], 1), num_fixed=DIM)
    before, after = (drifted - z).square().mean(), (answer.rows[:, DIM:] - z).square().mean()
    assert after < 0.05 * before
    assert answer.diagnostics["bank_dependence_shift"] > 3


def test_a_dependence_needs_rows_and_is_else_left_alone():
    x, z = torch.randn(2, 30, 8).double()
    ages = torch.arange(3).repeat_interleave(10)
    answer = match_moments(torch.cat([x, z], 1), ages, num_current=10, num_fixed=8)
    assert answer.diagnostics["bank_dependence_shift"] == 0


def test_matching_does_not_depend_on_units_or_origin():
    rows = still() * torch.exp(0.05 * NUM_AGES)[:, None]
    scale, offset = torch.logspace(-3, 3, DIM).double(), torch.linspace(-9, 9, DIM).double()
    direct = matched(rows, num_fixed=4).rows * scale + offset
    torch.testing.assert_close(matched(rows * scale + offset, num_fixed=4).rows, direct)


@pytest.mark.parametrize("level", [0.0, 3.3, 1e4 + 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_features_take_no_part(level, dtype):
    rows = (still() * torch.exp(0.05 * NUM_AGES)[:, None]).to(dtype)
    constant = torch.full((len(rows), 2), level, dtype=dtype)
    padded = torch.cat([rows[:, :4], constant, rows[:, 4:], constant], dim=1)
    alone, answer = matched(rows, num_fixed=4), matched(padded, num_fixed=6)
    error = (answer.rows[:, 6:-2] - alone.rows[:, 4:]).abs() / rows[:, 4:].std(0)
    assert error.max() < 2e-3  # with noise as a feature: above 1
    assert torch.equal(answer.rows[:, -2:], constant)
    torch.testing.assert_close(answer.diagnostics, alone.diagnostics, rtol=1e-3, atol=1e-3)


def test_float32_agrees_with_float64():
    rows = still() * torch.exp(0.05 * NUM_AGES)[:, None]
    double, single = matched(rows, num_fixed=4).rows, matched(rows.float(), num_fixed=4).rows
    error = (single - double).abs() / double.std(0)
    assert error.max() < 2e-3


@pytest.mark.parametrize("num_current", [1, 2])
def test_constant_features_identical_rows_and_tiny_batches_give_finite_rows(num_current):
    ages = torch.cat([torch.zeros(num_current), torch.ones(3), torch.full((40,), 2)]).long()
    rows = torch.randn(len(ages), 6)
    rows[:, 2] = 3.0
    rows[:, 5] = rows[:, 4]
    for samples in (rows, torch.ones_like(rows)):
        answer = match_moments(samples, ages, num_current=num_current, num_fixed=3)
        assert torch.isfinite(answer.rows).all()
        assert all(torch.isfinite(value) for value in answer.diagnostics.values())
        assert torch.equal(answer.rows[:, 2], samples[:, 2])
