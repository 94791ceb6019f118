"""A trained job becomes an evaluation and a directory that loads, and nothing less."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch

import mige
from jobs.artifacts import ObjectStore
from jobs.build import BuiltJob, build
from jobs.calibrate import calibrate_job
from jobs.data import ImageArrays
from jobs.errors import ArtifactInvalidError, DataInvalidError, DivergedError
from jobs.evaluate import Evaluation, check_labels, evaluate
from jobs.export import export_encoder
from jobs.golden import GOLDEN_FILE, check_golden
from jobs.registry import stage_objects
from jobs.run_directory import RunDirectory
from jobs.spec import EvaluationSpec, JobSpec
from jobs.train import TrainResult
from jobs.wire import Manifest

RESULT = TrainResult(steps=3, epochs=1, resumed_step=None, seconds=1.5, metrics={"loss": 0.5})
FILES = {
    "README.md",
    "config.json",
    "encoder.safetensors",
    "evaluation.json",
    "golden.json",
    "provenance.json",
}


def job(**changes: Any) -> BuiltJob:
    base: dict[str, Any] = {
        "name": "tiny",
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp", "hidden_dims": [8], "out_dim": 4},
        "data": {"kind": "digits"},
        "evaluation": {"limit_rows": 150},
    }
    spec = JobSpec.model_validate(base | changes).resolved()
    return build(spec, None, device=torch.device("cpu"))


def attempt(tmp_path) -> RunDirectory:
    run = RunDirectory(tmp_path, "job_1", 2)
    run.root.mkdir(parents=True)
    return run


def arrays(labels: np.ndarray) -> ImageArrays:
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return ImageArrays(x_train=images, y_train=labels, x_test=images, y_test=labels)


def evaluated(built: BuiltJob) -> Evaluation:
    return evaluate(built, obey=lambda: None)


def test_the_evaluation_holds_what_was_asked_for_and_its_baselines():
    evaluation = evaluated(job())
    assert set(evaluation) == {"linear_probe@1", "knn@1", "rankme@1"}
    assert set(evaluation["knn@1"]) == {"trained", "random", "raw", "num_train", "num_test"}
    assert set(evaluation["rankme@1"]) == {"trained", "random", "num_train", "num_test"}
    assert evaluation["knn@1"]["num_train"] == evaluation["knn@1"]["num_test"] == 150
    # Nothing was trained, so both are the same encoder.
    assert evaluation["linear_probe@1"]["trained"] == evaluation["linear_probe@1"]["random"]
    assert evaluation["linear_probe@1"]["raw"] > 0.8


def test_switched_off_protocols_and_baselines_are_absent():
    evaluation = evaluated(job(evaluation={"knn": False, "baselines": False, "limit_rows": 50}))
    assert set(evaluation) == {"linear_probe@1", "rankme@1"}
    assert set(evaluation["linear_probe@1"]) == {"trained", "num_train", "num_test"}


def test_evaluating_leaves_the_trained_weights_alone():
    built = job()
    before = {key: value.clone() for key, value in built.module.state_dict().items()}
    evaluated(built)
    after = built.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("labels", [np.zeros(50, int), np.arange(10_001)])
def test_labels_that_no_probe_can_use_are_refused_before_training(labels):
    with pytest.raises(DataInvalidError, match="classes"):
        check_labels(arrays(labels), EvaluationSpec(limit_rows=None))


def test_labels_do_not_matter_if_nobody_looks_at_them():
    check_labels(arrays(np.zeros(50, int)), EvaluationSpec(linear_probe=False, knn=False))


def test_a_limit_keeps_all_classes_of_a_sorted_set():
    check_labels(arrays(np.repeat([-5, 7], 500)), EvaluationSpec(limit_rows=10))


def test_a_staged_encoder_is_whole_and_loads(tmp_path):
    built, run = job(), attempt(tmp_path)
    evaluation = evaluated(built)
    manifest = export_encoder(built, run, RESULT, evaluation)
    assert {entry.path for entry in manifest.files} == FILES
    assert Manifest.model_validate_json((run.result / "manifest.json").read_bytes()) == manifest
    for entry in manifest.files:
        content = (run.result / entry.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            entry.size_bytes,
            entry.sha256,
        )
        assert (run.result / entry.path).stat().st_mode & 0o777 == 0o600
    assert manifest.metadata["input_shape"] == [1, 8, 8]
    assert manifest.metadata["evaluation"] == evaluation
    loaded = mige.load_encoder(run.result)
    images = torch.from_numpy(built.arrays.x_test[:20])
    expected = built.module.encoder.eval()(
        mige.standardize_images(images, mean=built.config.mean, std=built.config.std)
    )
    torch.testing.assert_close(loaded.embed(images), expected.detach(), rtol=1e-5, atol=1e-5)
    check_golden(loaded, (run.result / GOLDEN_FILE).read_bytes())


def test_the_provenance_tells_spec_data_and_versions(tmp_path):
    built, run = job(), attempt(tmp_path)
    export_encoder(built, run, RESULT, {})
    provenance = json.loads((run.result / "provenance.json").read_text())
    assert JobSpec.model_validate_json(json.dumps(provenance["spec"])) == built.spec
    assert provenance["data"]["sha256"] == built.arrays.digest()
    assert provenance["versions"]["torch"] == torch.__version__
    assert (provenance["job_id"], provenance["attempts"]) == ("job_1", 2)


def test_the_model_card_shows_numbers_and_how_to_load(tmp_path):
    built, run = job(), attempt(tmp_path)
    export_encoder(built, run, RESULT, {"linear_probe@1": {"trained": 0.951, "num_test": 500}})
    card = (run.result / "README.md").read_text()
    assert card.startswith("# tiny")
    assert "| linear_probe@1 | 95.1 % | – | – | – | 500 |" in card
    assert "mige.load_encoder" in card


def test_a_calibration_is_staged_and_shown_in_the_model_card(tmp_path):
    built, run = (
        job(evaluation={"calibration": True}, training={"batch_size": 16}),
        attempt(tmp_path),
    )
    calibration = calibrate_job(built, obey=lambda: None, tell=lambda _: None)
    manifest = export_encoder(built, run, RESULT, {}, calibration)
    assert {e.path for e in manifest.files} == FILES | {"calibration.json", "calibration.png"}
    card = json.loads((run.result / "calibration.json").read_text())
    assert (card["n"], card["d"], card["dim_x"]) == (16, 4, 8)
    readme = (run.result / "README.md").read_text()
    assert "## Calibration" in readme
    assert "| gauss |" in readme
    objects = ObjectStore(tmp_path / "objects")
    assert stage_objects(run.result, manifest, objects) == {}  # what is published is accepted


def test_leftovers_of_an_earlier_worker_are_replaced(tmp_path):
    built, run = job(), attempt(tmp_path)
    run.result.mkdir()
    (run.result / "left.txt").write_text("over")
    manifest = export_encoder(built, run, RESULT, {})
    assert {entry.path for entry in manifest.files} == FILES


def test_weights_that_are_not_finite_are_never_staged(tmp_path):
    built, run = job(), attempt(tmp_path)
    with torch.no_grad():
        next(built.module.encoder.parameters())[0, 0] = float("nan")
    with pytest.raises(DivergedError):
        export_encoder(built, run, RESULT, {})
    assert not (run.result / "manifest.json").exists()


def test_golden_embeddings_catch_a_changed_weight_and_a_broken_file(tmp_path):
    built, run = job(), attempt(tmp_path)
    export_encoder(built, run, RESULT, {})
    golden = (run.result / GOLDEN_FILE).read_text()
    loaded = mige.load_encoder(run.result)
    check_golden(loaded, golden)
    for broken in ("{}", "nonsense", golden.replace("float32", "int8")):
        with pytest.raises(ArtifactInvalidError):
            check_golden(loaded, broken)
    with torch.no_grad():
        next(loaded.parameters()).add_(1e-3)
    with pytest.raises(ArtifactInvalidError, match="golden"):
        check_golden(loaded, golden)
