"""How much a linear classifier finds in an embedding."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mige.checks import check_count, check_positive, check_rows
from mige.errors import InvalidInputError
from mige.linalg import check_finite

LINEAR_PROBE = "linear_probe@1"


class ProbeResult(NamedTuple):
    """What a probe measured, and under which protocol."""

    protocol: str
    accuracy: float  # share of the test rows, in [0, 1]
    train_accuracy: float
    num_train: int
    num_test: int
    num_classes: int


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    inverse_penalty: float = 1.0,
    max_iterations: int = 200,
) -> ProbeResult:
    """Multinomial logistic regression on standardised features; accuracy on the test rows.

    Protocol `linear_probe@1`: features are standardised with the training mean and standard
    deviation (constant ones stay 0); weights W and intercepts b minimise
    mean cross entropy + |W|² / (2 · inverse_penalty · n), which is scikit-learn's
    `LogisticRegression(C=inverse_penalty)`; L-BFGS from zero with strong Wolfe line search, until
    the largest gradient is below 1e-5 or `max_iterations`. The problem is convex and nothing is
    random, so the result is a function of the data.

    Args:
        train: embeddings, (n, d).
        train_labels: (n,), integers from 0.
        test: embeddings, (m, d).
        test_labels: (m,).
        inverse_penalty: scikit-learn's C; a larger one regularises less.
        max_iterations: of L-BFGS.

    Raises:
        InvalidInputError: shapes or labels do not fit, or the training rows hold one class only.
        NumericalError: an embedding is not finite.
    """
    check_positive("inverse_penalty", inverse_penalty)
    check_count("max_iterations", max_iterations)
    check_labelled("train", train, train_labels)
    check_labelled("test", test, test_labels)
    num_classes = int(torch.maximum(train_labels.max(), test_labels.max())) + 1
    if int(train_labels.min()) == int(train_labels.max()):
        raise InvalidInputError("train_labels hold a single class: a probe needs at least two")
    with torch.autocast(train.device.type, enabled=False):
        mean, std = train.detach().float().mean(0), train.detach().float().std(0, correction=0)
        scale = torch.where(train.amax(0) > train.amin(0), std, 1.0).clamp(min=1e-30)
        x_train = (train.detach().float() - mean) / scale
        x_test = (test.detach().float() - mean) / scale
        weight, bias = _fit(x_train, train_labels, num_classes, inverse_penalty, max_iterations)
        return ProbeResult(
            LINEAR_PROBE,
            _accuracy(x_test @ weight + bias, test_labels),
            _accuracy(x_train @ weight + bias, train_labels),
            len(train),
            len(test),
            num_classes,
        )


def check_labelled(name: str, rows: Tensor, labels: Tensor) -> None:
    """Check a set of embeddings with labels.

    Raises:
        InvalidInputError: the shapes differ, or labels are not integers from 0.
        NumericalError: an embedding is not finite.
    """
    check_rows(name, rows)
    check_finite(name, rows)
    if labels.shape != (len(rows),) or labels.is_floating_point() or int(labels.min()) < 0:
        raise InvalidInputError(
            f"{name}_labels have shape {tuple(labels.shape)} and dtype {labels.dtype}: "
            f"give {len(rows)} integers from 0"
        )


@torch.enable_grad()
def _fit(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    inverse_penalty: float,
    max_iterations: int,
) -> tuple[Float[Tensor, "d c"], Float[Tensor, " c"]]:
    weight = x.new_zeros(x.shape[1], num_classes, requires_grad=True)
    bias = x.new_zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        tolerance_grad=1e-5,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    penalty = 0.5 / (inverse_penalty * len(x))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(x @ weight + bias, labels.long())
        loss = loss + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _accuracy(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    return float((logits.argmax(1) == labels).double().mean())
