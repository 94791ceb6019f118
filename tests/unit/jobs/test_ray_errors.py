"""What Ray's exceptions mean, what is retried, and that Ray's private hooks are still there."""

import pickle
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import ray.exceptions
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from jobs.errors import (
    DataInvalidError,
    DivergedError,
    SpecInvalidError,
    StorageFullError,
    WorkersLostError,
)
from jobs.ray_backend import worker_group
from jobs.ray_backend.errors import translate
from jobs.ray_backend.failures import HeadLostError, WorkerGroupStartTimeoutError
from jobs.ray_backend.policies import JobFailurePolicy, OwnHeadScalingPolicy
from jobs.ray_backend.warm import WarmGroup
from jobs.ray_backend.worker_group import GroupShape, JobTrainer, check_capacity, fit
from jobs.spec import ResourcesSpec
from jobs.states import Reason

DIVERGED = DivergedError("The loss is not finite.", "Lower the learning rate.")
FULL = StorageFullError("No room.", "Make some.")
PEER_GONE = RuntimeError("Connection closed by peer")


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def died(error=None):
    return WorkerHealthCheckFailedError("a check failed", error or ray.exceptions.ActorDiedError())


def failed(**by_rank):
    failures = {int(rank[1:]): error for rank, error in by_rank.items()}
    return WorkerGroupError("failed", failures)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (failed(r0=PEER_GONE, r1=DIVERGED), DIVERGED),  # rank 0 only lost its peer
        (failed(r0=FULL, r1=PEER_GONE), FULL),
        (failed(r0=FULL, r1=DIVERGED), DIVERGED),  # what is final decides
        (failed(r0=PEER_GONE), PEER_GONE),
    ],
)
def test_the_error_that_explains_the_others_is_the_attempts(error, meaning):
    assert translate(error) is meaning


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed(r0=PEER_GONE, r1=died()), WorkersLostError),
        (failed(r0=died(ray.exceptions.OutOfMemoryError("oom"))), MemoryError),
        (failed(r0=PEER_GONE, r1=MemoryError()), MemoryError),
        (failed(r0=OutOfMemoryError("CUDA out of memory")), OutOfMemoryError),
        (failed(r0=PEER_GONE, r1=TypeError("a bug")), TypeError),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), WorkerGroupStartTimeoutError),
        (ControllerError(InsufficientClusterResourcesError("too much")), SpecInvalidError),
        (ControllerError(RuntimeError("?")), WorkersLostError),
    ],
)
def test_every_failure_of_ray_train_has_a_meaning(error, kind):
    assert type(translate(error)) is kind


def test_the_ranks_that_died_are_named():
    error = translate(failed(r0=PEER_GONE, r1=died(), r3=died()))
    assert str(error).startswith("Worker 1, 3 died")


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (failed(r0=died()), FailureDecision.RETRY),
        (failed(r0=PEER_GONE), FailureDecision.RETRY),  # its peer may have been killed
        (failed(r0=FULL), FailureDecision.RETRY),
        (failed(r0=PEER_GONE, r1=DIVERGED), FailureDecision.RAISE),
        (failed(r0=MemoryError()), FailureDecision.RAISE),
        (failed(r0=KeyError("a bug")), FailureDecision.RAISE),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), FailureDecision.RETRY),
    ],
)
def test_only_what_a_new_group_may_cure_is_retried(error, decision):
    policy = JobFailurePolicy(FailureConfig(max_failures=1, controller_failure_limit=1))
    assert policy.make_decision(error) is decision


def test_retries_end():
    policy = JobFailurePolicy(FailureConfig(max_failures=2, controller_failure_limit=1))
    decisions = [policy.make_decision(failed(r0=died())) for _ in range(3)]
    assert decisions == [FailureDecision.RETRY, FailureDecision.RETRY, FailureDecision.RAISE]


@pytest.mark.parametrize("cls", [WorkerGroupStartTimeoutError, HeadLostError])
def test_errors_survive_the_trip_between_processes_and_have_a_reason(cls):
    error = cls("What.", "Do this.")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    assert error.retryable
    assert Reason(error.code)


def make_trainer():
    return JobTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own making
def test_the_trainer_leaves_out_the_processes_it_does_not_need():
    names = {type(callback).__name__ for callback in make_trainer()._create_default_callbacks()}
    assert "BackendSetupCallback" in names
    assert names.isdisjoint({"PlacementGroupCleanerCallback", "DatasetsCallback"})
    everything = TorchTrainer._create_default_callbacks(make_trainer())
    assert {"PlacementGroupCleanerCallback", "DatasetsCallback"} <= {
        type(callback).__name__ for callback in everything
    }


def test_the_trainer_brings_its_own_policies(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        TorchTrainer, "_initialize_and_run_controller", lambda self, **kwargs: seen.update(kwargs)
    )
    config = FailureConfig(max_failures=7)
    scaling = ScalingConfig(num_workers=3)
    make_trainer()._initialize_and_run_controller(
        failure_policy=DefaultFailurePolicy(config), scaling_policy=FixedScalingPolicy(scaling)
    )
    assert type(seen["scaling_policy"]) is OwnHeadScalingPolicy
    assert seen["scaling_policy"].scaling_config is scaling
    assert type(seen["failure_policy"]) is JobFailurePolicy
    assert seen["failure_policy"].failure_config.max_failures == 7


def test_the_scaling_policy_asks_nobody_for_room():
    policy = OwnHeadScalingPolicy(ScalingConfig(num_workers=3))
    policy.after_controller_start(None)
    decision = policy.make_decision_for_non_running_worker_group()
    assert decision.num_workers == 3
    policy.before_controller_abort()


def test_fit_has_bounded_budgets_and_means_what_it_raises(monkeypatch, tmp_path):
    seen = {}

    def fail(self):
        seen["config"] = self.run_config.failure_config
        raise failed(r0=DataInvalidError("Torn.", "Copy it again."))

    monkeypatch.setattr(JobTrainer, "fit", fail)
    with pytest.raises(DataInvalidError):
        fit(GroupShape(num_workers=1, cpus=1, gpus=0), {}, storage=tmp_path)
    assert seen["config"].max_failures == 2
    assert seen["config"].controller_failure_limit == 2


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.ActorUnavailableError("socket closed", b"0" * 16),
        ray.exceptions.ActorDiedError(),
        ray.exceptions.RaySystemError("the raylet is gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_head_or_raylet_means_lost_workers(monkeypatch, tmp_path, error):
    def fail(self):
        raise error

    monkeypatch.setattr(JobTrainer, "fit", fail)
    with pytest.raises(WorkersLostError) as caught:
        fit(GroupShape(num_workers=1, cpus=1, gpus=0), {}, storage=tmp_path)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("shape", "resources"),
    [
        (GroupShape(2, 3, 0), {"CPU": 3}),
        (GroupShape(1, 1, 1), {"CPU": 1, "GPU": 1}),
        (GroupShape(1, 0, 0), {"mige_standby": 1}),
    ],
)
def test_a_shape_asks_for_what_each_worker_needs(shape, resources):
    scaling = shape.scaling()
    assert scaling.num_workers == shape.num_workers
    assert scaling._resources_per_worker_not_none == resources
    assert scaling.use_gpu == (shape.gpus > 0)


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        ({"num_workers": 2}, None),
        ({"num_workers": 3}, "/resources/num_workers"),
        ({"cpus_per_worker": 3}, "/resources/cpus_per_worker"),
        ({"gpus_per_worker": 1}, "/resources/gpus_per_worker"),
    ],
)
def test_a_group_that_could_never_start_is_refused(monkeypatch, resources, pointer):
    monkeypatch.setattr(worker_group.ray, "cluster_resources", lambda: {"CPU": 2.0})
    shape = GroupShape.of(ResourcesSpec(**resources))
    if pointer is None:
        check_capacity(shape)
        return
    with pytest.raises(SpecInvalidError) as caught:
        check_capacity(shape)
    assert caught.value.pointer == pointer
    assert caught.value.code == "infeasible_config"


def test_a_waiting_group_refuses_what_a_new_one_would_refuse(monkeypatch, tmp_path):
    monkeypatch.setattr(worker_group.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(worker_group, "start", lambda *_, **__: Future())
    resources = SimpleNamespace(resources=ResourcesSpec(cpus_per_worker=3))
    with pytest.raises(SpecInvalidError, match="cpus_per_worker"):
        WarmGroup(tmp_path).run(SimpleNamespace(spec=resources))
    assert not (tmp_path / "assignment").exists()
