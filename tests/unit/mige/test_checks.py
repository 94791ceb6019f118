import pytest
import torch

from mige.checks import (
    check_choice,
    check_count,
    check_counts,
    check_flag,
    check_fraction,
    check_options,
    check_positive,
    check_rows,
    check_samples,
)
from mige.errors import InvalidInputError


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "1", None])
def test_only_finite_numbers_above_zero_are_positive(value):
    with pytest.raises(InvalidInputError, match="ridge="):
        check_positive("ridge", value)


def test_zero_is_accepted_where_it_is_allowed():
    assert check_positive("noise_std", 0, zero_allowed=True) == 0.0


@pytest.mark.parametrize("value", [0.0, 1.0001, -0.5, True])
def test_a_fraction_lies_above_zero_and_at_most_at_one(value):
    with pytest.raises(InvalidInputError, match="explained="):
        check_fraction("explained", value)


def test_one_is_a_fraction():
    assert check_fraction("explained", 1) == 1.0


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "3"])
def test_a_count_is_an_integer_of_at_least_one(value):
    with pytest.raises(InvalidInputError, match="out_dim="):
        check_count("out_dim", value)


def test_the_wrong_entry_of_a_list_is_named():
    with pytest.raises(InvalidInputError, match=r"hidden_dims\[1\]=0"):
        check_counts("hidden_dims", [3, 0])


@pytest.mark.parametrize("values", ["12", 5, None])
def test_a_list_of_counts_is_a_list(values):
    with pytest.raises(InvalidInputError, match="give a list"):
        check_counts("hidden_dims", values)


@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0), (2, 2, 2)])
def test_rows_are_a_matrix_that_is_not_empty(shape):
    with pytest.raises(InvalidInputError, match="samples has shape"):
        check_rows("samples", torch.zeros(shape))


def test_rows_are_floating_point():
    with pytest.raises(InvalidInputError, match=r"dtype torch\.int64"):
        check_rows("samples", torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_a_flag_is_true_or_false_and_nothing_like_it(value):
    assert check_flag("residual", False) is False
    with pytest.raises(InvalidInputError, match=r"residual=.*: give True or False"):
        check_flag("residual", value)


@pytest.mark.parametrize("shape", [(3,), (0, 2), (4, 0, 2), (4, 3, 0)])
def test_samples_may_have_leading_dimensions_but_nothing_empty(shape):
    assert check_samples("x", torch.zeros(2, 3, 4)).shape == (2, 3, 4)
    with pytest.raises(InvalidInputError, match=r"x has shape \("):
        check_samples("x", torch.zeros(shape))


@pytest.mark.parametrize("value", ["cosine", ["rbf"], {}, None, 3])
def test_a_choice_is_one_of_the_names_whatever_its_type(value):
    assert check_choice("kernel", "rbf", {"rbf": 1}) == "rbf"
    with pytest.raises(InvalidInputError, match=r"kernel=.* is unknown: choose one of 'rbf'"):
        check_choice("kernel", value, {"rbf": 1})


@pytest.mark.parametrize("value", [None, "alpha", ["alpha"], {1: 2.0}])
def test_options_are_a_mapping_of_names(value):
    assert check_options("kernel_options", {"alpha": 2.0}) == {"alpha": 2.0}
    with pytest.raises(InvalidInputError, match=r"kernel_options=.*: give a mapping"):
        check_options("kernel_options", value)
