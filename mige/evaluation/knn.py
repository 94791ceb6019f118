"""How well nearest neighbours in an embedding share their labels."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mige.checks import check_count
from mige.errors import InvalidInputError
from mige.evaluation.linear_probe import ProbeResult, check_labelled

KNN = "knn@1"

_CHUNK = 1024  # queries at once: the distances take 4 · _CHUNK · n bytes


@torch.no_grad()
def knn_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    num_neighbors: int = 5,
) -> ProbeResult:
    """Exact k-nearest-neighbour classification; accuracy on the test rows.

    Protocol `knn@1`: Euclidean distance on the embeddings as they are, majority vote of the
    `num_neighbors` nearest training rows, a tie goes to the class whose nearest member is nearest.
    `train_accuracy` leaves each training row itself out. Nothing is random.

    Args:
        train: embeddings, (n, d).
        train_labels: (n,), integers from 0.
        test: embeddings, (m, d).
        test_labels: (m,).
        num_neighbors: k.

    Raises:
        InvalidInputError: shapes or labels do not fit, or there are not more than k training rows.
        NumericalError: an embedding is not finite.
    """
    check_count("num_neighbors", num_neighbors)
    check_labelled("train", train, train_labels)
    check_labelled("test", test, test_labels)
    if len(train) <= num_neighbors:
        raise InvalidInputError(
            f"num_neighbors={num_neighbors} with {len(train)} training rows: give fewer neighbours"
        )
    num_classes = int(torch.maximum(train_labels.max(), test_labels.max())) + 1
    centre = train.float().mean(0)
    train, test = train.float() - centre, test.float() - centre
    labels = train_labels.long()
    own = _neighbor_labels(train, train, labels, num_neighbors, leave_out_self=True)
    others = _neighbor_labels(test, train, labels, num_neighbors, leave_out_self=False)
    return ProbeResult(
        KNN,
        float((_vote(others, num_classes) == test_labels).double().mean()),
        float((_vote(own, num_classes) == train_labels).double().mean()),
        len(train),
        len(test),
        num_classes,
    )


def _neighbor_labels(
    queries: Float[Tensor, "m d"],
    rows: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    count: int,
    *,
    leave_out_self: bool,
) -> Int[Tensor, "m k"]:
    """Labels of the nearest rows, nearest first."""
    norms = rows.square().sum(1)
    found = []
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        # |q − r|² without |q|², which does not change the order.
        distance = torch.addmm(norms[None, :], chunk, rows.T, alpha=-2.0)
        if leave_out_self:
            index = torch.arange(len(chunk), device=rows.device)
            distance[index, start + index] = torch.inf
        found.append(labels[distance.topk(count, largest=False).indices])
    return torch.cat(found)


def _vote(neighbors: Int[Tensor, "m k"], num_classes: int) -> Int[Tensor, " m"]:
    """The most frequent label of each row; the earliest one among equally frequent ones."""
    count = neighbors.shape[1]
    # Each vote weighs 1 and a little more the nearer it is; all the extras together stay below 1.
    extra = 2.0 ** -torch.arange(1.0, count + 1.0, device=neighbors.device) / 2.0
    ballots = torch.nn.functional.one_hot(neighbors, num_classes)  # (m, k, classes)
    return ((1.0 + extra)[:, None] * ballots).sum(1).argmax(1)
