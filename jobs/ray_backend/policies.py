"""What Ray Train's controller decides for our jobs: what it retries, and whom it asks for room."""

from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from jobs.ray_backend.errors import is_final


class JobFailurePolicy(DefaultFailurePolicy):
    """Ray's own budget, but an error that would come again ends the attempt at once."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Decide what follows a failed worker group or controller step."""
        if isinstance(training_failed_error, WorkerGroupError) and any(
            is_final(error) for error in training_failed_error.worker_failures.values()
        ):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


class OwnHeadScalingPolicy(FixedScalingPolicy):
    """A fixed number of workers on a head that cannot grow.

    Ray's policy first tells an actor, whose start takes 2 s and 200 MB, to tell the autoscaler what
    is wanted; our own head has none.
    """

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Ask nobody for room."""

    def _maybe_send_resource_request(self) -> None:
        """Ask nobody for room."""
