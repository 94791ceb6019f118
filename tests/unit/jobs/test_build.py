"""From specs to mige objects: every option arrives, and names of both sides agree."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch

import mige
from jobs.build import build, build_encoder, build_estimator
from jobs.estimator_spec import AnyKernelSpec, BandwidthSpec, EstimatorSpec
from jobs.spec import EncoderSpec, JobSpec
from mige.normalization import NORMALIZERS
from mige.scores import SteinCorrectedEstimator

CPU = torch.device("cpu")


def spec(**parts: Any) -> JobSpec:
    base = {
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp"},
        "data": {"kind": "digits"},
    }
    return JobSpec.model_validate(base | parts).resolved()


def kinds(union: Any) -> set[str]:
    parts = typing.get_args(typing.get_args(union)[0])
    return {typing.get_args(part.model_fields["kind"].annotation)[0] for part in parts}


def built_estimator(**estimator: Any) -> Any:
    objective = {"kind": "mige_infomax", "estimator": estimator}
    return build_estimator(spec(objective=objective).objective.estimator)


def literal(model: Any, field: str) -> set[str]:
    return set(typing.get_args(model.model_fields[field].annotation))


def test_every_kind_of_a_spec_is_in_the_registry_and_the_other_way_round():
    assert kinds(EncoderSpec) == set(mige.ENCODERS)
    assert kinds(EstimatorSpec) == set(mige.SCORE_ESTIMATORS)
    objective = type(spec().objective)
    assert literal(objective, "kind") == set(mige.OBJECTIVES)
    assert literal(objective, "normalize") == set(NORMALIZERS)


def test_every_option_of_the_objective_arrives():
    wanted = {
        "kind": "mige_infomax",
        "projection_dim": 7,
        "noise_std": 0.25,
        "normalize": "sphere",
        "gather": "local",
        "estimator": {
            "kind": "spectral",
            "explained": 0.9,
            "bandwidth": {"kind": "median", "scale": 2.0},
        },
    }
    objective: Any = build(spec(objective=wanted), None, device=CPU).module.objective
    assert objective.projection.shape == (64, 7)
    assert (objective.noise_std, objective.gather, objective.route) == (0.25, "local", "joint")
    assert type(objective.normalizer).__name__ == "SphereNormalizer"
    assert (objective.estimator.explained, objective.estimator.bandwidth_scale) == (0.9, 2.0)


def test_the_conditional_route_needs_no_projection():
    wanted = {"kind": "mige_infomax", "route": "conditional", "noise_std": 0.5}
    objective: Any = build(spec(objective=wanted), None, device=CPU).module.objective
    assert objective.projection is None


def test_a_bank_arrives_as_wide_as_its_rows_and_is_left_out_by_default():
    wanted = {"kind": "mige_infomax", "projection_dim": 7, "bank_size": 50}
    objective: Any = build(spec(objective=wanted), None, device=CPU).module.objective
    bank = objective.bank
    assert (bank.capacity, bank.dim, bank.num_fixed) == (50, 7 + 16, 7)
    assert objective.equal_shares
    default: Any = build(spec(), None, device=CPU).module.objective
    assert default.bank is None


def test_a_fixed_bandwidth_and_a_ridge_arrive():
    built = built_estimator(
        kind="gaussian_residual", ridge=0.3, bandwidth={"kind": "fixed", "value": 3.0}
    )
    assert (built.ridge, built.bandwidth) == (0.3, 3.0)


@pytest.mark.parametrize("kind", sorted(mige.SCORE_ESTIMATORS))
def test_the_defaults_of_an_estimator_are_those_of_the_library(kind):
    ours, theirs = built_estimator(kind=kind), mige.make_score_estimator(kind)
    assert vars(ours) == vars(theirs)


@pytest.mark.parametrize("kernel", sorted(kinds(AnyKernelSpec)))
@pytest.mark.parametrize("kind", ["tikhonov", "landweber", "nu_method"])
def test_every_kernel_arrives(kind, kernel):
    assert built_estimator(kind=kind, kernel={"kind": kernel}).kernel == kernel


def test_the_options_of_kernels_and_bandwidths_arrive():
    kernel = {"kind": "rational_quadratic", "alpha": 0.5}
    for kind in ("gaussian_residual", "stein"):
        assert built_estimator(kind=kind, kernel=kernel).kernel_options == {"alpha": 0.5}
    for rule in sorted(kinds(BandwidthSpec) - {"fixed"}):
        built = built_estimator(kind="stein", bandwidth={"kind": rule, "scale": 1.5})
        assert (built.bandwidth, built.bandwidth_scale) == (rule, 1.5)


def test_a_stein_correction_arrives():
    built = built_estimator(kind="spectral", stein_correction=True)
    assert isinstance(built, SteinCorrectedEstimator)


def test_the_options_of_the_convolutional_encoder_arrive():
    encoder = {"kind": "dim_conv", "base_channels": 4, "fc_dim": 8, "out_dim": 3}
    built = build(spec(encoder=encoder), None, device=CPU)
    assert built.config.options == {"channels": (4, 8, 16), "hidden_dim": 8}


def test_building_an_encoder_leaves_the_random_generator_alone():
    config = build(spec(), None, device=CPU).config
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    build_encoder(config, seed=9)
    assert torch.equal(torch.randn(4), expected)


@pytest.mark.parametrize(
    ("training", "total"),
    [({"epochs": 3}, 15), ({"epochs": 3, "max_steps": 7}, 7), ({"batch_size": 1297}, 80)],
)
def test_the_number_of_steps_follows_from_epochs_batch_and_limit(training, total):
    assert build(spec(training=training), None, device=CPU).total_steps == total


def test_the_statistics_of_the_config_are_those_of_the_rows_that_are_used():
    whole = build(spec(), None, device=CPU).config
    few = build(spec(training={"limit_train_rows": 300}), None, device=CPU)
    assert few.config.mean != whole.mean
    assert few.config.mean[0] == pytest.approx(float(few.arrays.x_train.mean()), abs=1e-5)
    assert len(few.arrays.x_train) == 300
