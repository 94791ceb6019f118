import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from mige import InvalidInputError, knn_probe


def test_agrees_with_scikit_learn_on_digits():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
    x, x_test, y, y_test = x[:1297], x[1297:], y[:1297], y[1297:]
    expected = KNeighborsClassifier(n_neighbors=5).fit(x, y).score(x_test, y_test)
    result = knn_probe(x, y, x_test, y_test)
    # Ties are broken differently: 3 of 500 rows.
    assert result.accuracy == pytest.approx(expected, abs=0.006)
    assert result.protocol == "knn@1"


def test_the_majority_of_the_nearest_wins():
    train = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]])
    labels = torch.tensor([0, 1, 1, 0, 0])
    result = knn_probe(train, labels, torch.tensor([[0.0]]), torch.tensor([1]), num_neighbors=3)
    assert result.accuracy == 1.0


def test_a_tie_goes_to_the_class_of_the_nearest():
    train = torch.tensor([[0.0], [1.0], [2.0], [2.5], [50.0]])
    labels = torch.tensor([2, 1, 1, 2, 0])
    one, four = torch.tensor([[-0.1]]), torch.tensor([[2.1]])
    assert knn_probe(train, labels, one, torch.tensor([2]), num_neighbors=4).accuracy == 1.0
    assert knn_probe(train, labels, four, torch.tensor([1]), num_neighbors=4).accuracy == 1.0


def test_a_training_row_is_not_its_own_neighbour():
    train = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    labels = torch.tensor([0, 1, 0, 1])
    result = knn_probe(train, labels, train, labels, num_neighbors=1)
    assert result.train_accuracy == 0.0
    assert result.accuracy == 1.0


def test_a_common_offset_changes_nothing():
    train, labels = torch.randn(100, 4), torch.randint(0, 3, (100,))
    test, answers = torch.randn(40, 4), torch.randint(0, 3, (40,))
    near = knn_probe(train, labels, test, answers)
    far = knn_probe(train.double() + 1e4, labels, test.double() + 1e4, answers)
    assert near.accuracy == far.accuracy


def test_more_neighbours_than_rows_are_refused():
    x, y = torch.randn(5, 2), torch.arange(5)
    with pytest.raises(InvalidInputError, match="num_neighbors=5 with 5 training rows"):
        knn_probe(x, y, x, y)
