"""Specs that cannot run are refused with a pointer, a code and a remedy; the others are not."""

from __future__ import annotations

import pytest

from jobs.data_sources import DataDescription
from jobs.errors import SpecInvalidError
from jobs.feasibility import MIN_SAMPLES, check_feasible, num_parameters
from jobs.spec import JobSpec

DIGITS = DataDescription(
    image_shape=(1, 8, 8), num_train=1297, num_test=500, num_classes=10, files=()
)
CIFAR = DataDescription(
    image_shape=(3, 32, 32), num_train=50_000, num_test=10_000, num_classes=10, files=()
)
WIDE = DataDescription(
    image_shape=(3, 256, 256), num_train=40_000, num_test=1000, num_classes=10, files=()
)
HUGE = DataDescription(
    image_shape=(3, 1024, 1024), num_train=300, num_test=20, num_classes=None, files=()
)


def spec(**parts: dict) -> JobSpec:
    base = {
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp"},
        "data": {"kind": "digits"},
        "resources": {"backend": "ray_train"},
    }
    merged = {key: {**base.get(key, {}), **part} for key, part in parts.items()}
    return JobSpec.model_validate(base | merged).resolved()


RESIDUAL = {"kind": "gaussian_residual"}
CURL_FREE = {"kind": "tikhonov", "kernel": {"kind": "curl_free_rbf"}}


@pytest.mark.parametrize(
    ("parts", "description"),
    [
        ({}, DIGITS),
        ({"training": {"batch_size": 1297}}, DIGITS),
        ({"training": {"batch_size": 8}}, DIGITS),
        ({"objective": {"estimator": RESIDUAL}, "training": {"batch_size": 24}}, DIGITS),
        (
            {"objective": {"estimator": RESIDUAL, "bank_size": 16}, "training": {"batch_size": 8}},
            DIGITS,
        ),
        ({"objective": {"bank_size": 1233}, "training": {"batch_size": 64}}, DIGITS),
        ({"objective": {"estimator": CURL_FREE}}, DIGITS),
        ({"objective": {"estimator": {"kind": "tikhonov", "landmarks": 64}}}, DIGITS),
        ({"resources": {"num_workers": 4}}, DIGITS),
        ({"objective": {"route": "conditional", "noise_std": 0.1}}, DIGITS),
        ({"encoder": {"kind": "dim_conv"}}, CIFAR),
        ({"encoder": {"kind": "resnet18"}}, CIFAR),
        ({"training": {"batch_size": 8}, "resources": {"num_workers": 8}}, CIFAR),
    ],
)
def test_a_spec_that_can_run_is_not_refused(parts, description):
    check_feasible(spec(**parts), description)


@pytest.mark.parametrize(
    ("parts", "description", "pointer", "code", "remedy"),
    [
        ({"training": {"batch_size": 1298}}, DIGITS, "/training/batch_size", "too_large", "1297"),
        (
            {"training": {"batch_size": 65, "limit_train_rows": 64}},
            DIGITS,
            "/training/batch_size",
            "too_large",
            "limit_train_rows",
        ),
        (
            {"resources": {"num_workers": 3}},
            DIGITS,
            "/training/batch_size",
            "infeasible_config",
            "258",
        ),
        (
            {"resources": {"backend": "inline", "num_workers": 2}},
            DIGITS,
            "/resources/num_workers",
            "infeasible_config",
            "ray_train",
        ),
        (
            {"training": {"batch_size": 7}},
            DIGITS,
            "/training/batch_size",
            "objective_infeasible",
            "8",
        ),
        (
            {"objective": {"gather": "local"}, "training": {"batch_size": 16}}
            | {"resources": {"num_workers": 4}},
            DIGITS,
            "/training/batch_size",
            "objective_infeasible",
            "32 or more, or set objective.gather",
        ),
        (
            {"objective": {"estimator": RESIDUAL}, "training": {"batch_size": 23}},
            DIGITS,
            "/training/batch_size",
            "objective_infeasible",
            "to 24 or more",
        ),
        (
            {"objective": {"estimator": RESIDUAL, "bank_size": 10}, "training": {"batch_size": 8}},
            DIGITS,
            "/training/batch_size",
            "objective_infeasible",
            "batch_size to 14 or more, or objective.bank_size to 16 or more",
        ),
        (
            {"objective": {"bank_size": 100}, "training": {"batch_size": 7}},
            DIGITS,
            "/training/batch_size",
            "objective_infeasible",
            "8 or more",
        ),
        (
            {"objective": {"bank_size": 1234}, "training": {"batch_size": 64}},
            DIGITS,
            "/objective/bank_size",
            "too_large",
            "Lower bank_size to 1233",
        ),
        (
            {"objective": {"bank_size": 1, "gather": "local"}},
            DIGITS,
            "/objective/bank_size",
            "infeasible_config",
            "objective.gather to 'all'",
        ),
        (
            {"objective": {"bank_size": 40_000}},
            CIFAR,
            "/objective/bank_size",
            "too_large",
            "Lower objective.bank_size",
        ),
        (
            {"objective": {"estimator": CURL_FREE | {"landmarks": 64}}},
            DIGITS,
            "/objective/estimator/landmarks",
            "infeasible_config",
            "Leave landmarks out",
        ),
        (
            {"objective": {"route": "conditional"}},
            DIGITS,
            "/objective/noise_std",
            "objective_infeasible",
            "joint",
        ),
        (
            {"objective": {"route": "conditional", "noise_std": 0.1, "projection_dim": 8}},
            DIGITS,
            "/objective/projection_dim",
            "infeasible_config",
            "Leave projection_dim out",
        ),
        (
            {"objective": {"normalize": "sphere"}, "encoder": {"out_dim": 1}},
            DIGITS,
            "/encoder/out_dim",
            "objective_infeasible",
            "2 or more",
        ),
        ({"encoder": {"kind": "dim_conv"}}, DIGITS, "/encoder/kind", "infeasible_config", "mlp"),
        (
            {"encoder": {"hidden_dims": [16384, 16384, 16384, 16384, 16384]}},
            DIGITS,
            "/encoder",
            "too_large",
            "narrower",
        ),
        (
            {"training": {"batch_size": 40_000}},
            CIFAR,
            "/training/batch_size",
            "too_large",
            "batch_size",
        ),
        ({}, WIDE, "/data", "too_large", "fewer or smaller"),
        (
            {"encoder": {"kind": "dim_conv"}, "training": {"batch_size": 8}}
            | {"resources": {"num_workers": 8}},
            CIFAR,
            "/training/batch_size",
            "infeasible_config",
            "at least 16 rows",
        ),
        (
            {"objective": {"projection_dim": 4096}},
            HUGE,
            "/objective/projection_dim",
            "too_large",
            "projection_dim",
        ),
    ],
)
def test_a_spec_that_cannot_run_is_refused_with_a_remedy(parts, description, pointer, code, remedy):
    with pytest.raises(SpecInvalidError) as refused:
        check_feasible(spec(**parts), description)
    assert (refused.value.pointer, refused.value.code) == (pointer, code)
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    "parts",
    [
        {"training": {"batch_size": 7}},
        {"objective": {"estimator": RESIDUAL, "gather": "local"}, "training": {"batch_size": 16}},
    ],
)
def test_a_bank_is_not_advised_where_it_would_be_refused(parts):
    with pytest.raises(SpecInvalidError) as refused:
        check_feasible(spec(**parts), DIGITS)
    assert "bank_size" not in refused.value.remedy


@pytest.mark.parametrize(
    ("encoder", "description", "exact"),
    [
        ({"kind": "mlp", "hidden_dims": [512, 512], "out_dim": 16}, DIGITS, 304_144),
        ({"kind": "resnet18", "out_dim": 128}, CIFAR, 11_239_488),
    ],
)
def test_the_number_of_weights_is_about_right(encoder, description, exact):
    assert num_parameters(spec(encoder=encoder), description) == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("out_dim", [1, 16, 512])
@pytest.mark.parametrize("kind", sorted(MIN_SAMPLES))
def test_the_floors_are_not_below_what_the_estimators_declare(kind, out_dim):
    import mige

    wanted = spec(objective={"estimator": {"kind": kind}}, encoder={"out_dim": out_dim})
    declared = mige.make_score_estimator(kind).minimum_samples(3 * out_dim)
    assert MIN_SAMPLES[kind](wanted) >= declared
