import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mige import InvalidInputError, NumericalError, linear_probe


def digits():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order[:1297], order[1297:]
    return x[train], y[train], x[test], y[test]


def test_agrees_with_scikit_learns_logistic_regression_on_digits():
    x, y, x_test, y_test = digits()
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=1.0, max_iter=1000, tol=1e-6).fit(scaler.transform(x), y)
    result = linear_probe(x, y, x_test, y_test)
    expected = theirs.score(scaler.transform(x_test), y_test)
    assert result.accuracy == pytest.approx(expected, abs=0.005)
    assert (result.protocol, result.num_classes) == ("linear_probe@1", 10)
    assert (result.num_train, result.num_test) == (1297, 500)


def test_is_a_function_of_the_data():
    x, y, x_test, y_test = digits()
    assert linear_probe(x, y, x_test, y_test) == linear_probe(x, y, x_test, y_test)


def separable():
    y = torch.arange(60) % 3
    return torch.eye(3)[y] + 0.1 * torch.randn(60, 3), y


def test_separable_classes_are_separated_whatever_their_scale_and_offset():
    x, y = separable()
    x = torch.cat([1e-4 * x + 7.0, torch.full((60, 2), 3.0)], dim=1)  # two constant features
    assert linear_probe(x, y, x, y).accuracy == 1.0


def test_classes_that_only_the_test_rows_have_count_as_wrong():
    x, y = separable()
    result = linear_probe(x[y < 2], y[y < 2], x, y)
    assert result.num_classes == 3
    assert result.accuracy == pytest.approx(2 / 3)


def test_more_penalty_fits_the_training_rows_less():
    x, y = torch.randn(50, 20), torch.arange(50) % 2
    loose = linear_probe(x, y, x, y, inverse_penalty=100.0)
    tight = linear_probe(x, y, x, y, inverse_penalty=1e-4)
    assert loose.train_accuracy > tight.train_accuracy


def test_works_inside_no_grad_and_leaves_no_gradients():
    x, y = separable()
    x.requires_grad_()
    with torch.no_grad():
        linear_probe(x, y, x, y)
    assert x.grad is None


def test_labels_and_rows_that_do_not_fit_are_refused():
    x, y = separable()
    with pytest.raises(InvalidInputError, match="train_labels have shape"):
        linear_probe(x, y[:-1], x, y)
    with pytest.raises(InvalidInputError, match="test_labels have shape"):
        linear_probe(x, y, x, y.float())
    with pytest.raises(InvalidInputError, match="single class"):
        linear_probe(x, torch.zeros_like(y), x, y)
    with pytest.raises(NumericalError, match="test holds"):
        linear_probe(x, y, x * torch.inf, y)
