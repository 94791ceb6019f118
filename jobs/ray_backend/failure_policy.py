"""Which failures of a worker group Ray Train retries inside the attempt."""

from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
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
