"""Errors of Ray that another attempt may cure. Does not import Ray.

WorkersLostError                     (jobs.errors)
├── WorkerGroupStartTimeoutError     the workers found no place in time
└── HeadLostError                    the head does not start or does not answer
"""

from jobs.errors import WorkersLostError


class WorkerGroupStartTimeoutError(WorkersLostError):
    """The workers found no place in the cluster in time."""

    code = "worker_group_start_timeout"


class HeadLostError(WorkersLostError):
    """The Ray head does not start or does not answer."""

    code = "head_lost"
