"""A runner in small for the tests of Ray: drives an attempt without heartbeats and prints its end.

python ray_driver.py --attempt <file>      with new workers
python ray_driver.py --standby <home>      waiting, with a warm worker
"""

import sys
from pathlib import Path

from jobs.errors import JobError
from jobs.ray_backend.trainer import run_with_ray_train
from jobs.ray_backend.warm import serve
from jobs.wire import Launch


def drive(attempt_file: Path, run_ray=run_with_ray_train) -> int:
    launch = Launch.model_validate_json(attempt_file.read_bytes())
    outcome = attempt_file.with_name("outcome.txt")
    try:
        run_ray(launch)
    except JobError as error:
        outcome.write_text(f"{type(error).__name__}: {error}")
        return 3
    outcome.write_text("done")
    return 0


if __name__ == "__main__":
    mode, path = sys.argv[1], Path(sys.argv[2])
    sys.exit(serve(path, drive) if mode == "--standby" else drive(path))
