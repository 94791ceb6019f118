"""What a worker does before it trains."""

import pytest
import torch

from jobs import worker
from jobs.errors import SpecInvalidError
from jobs.reporters import FileReporter
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.wire import Launch


@pytest.mark.parametrize(("wanted", "there", "used"), [(256, 2, 2), (1, 2, 1)])
def test_a_worker_computes_on_no_more_processors_than_there_are(
    tmp_path, monkeypatch, wanted, there, used
):
    spec = {
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp"},
        "data": {"kind": "mnist"},  # without a data root this is where it ends
        "resources": {"backend": "inline", "cpus_per_worker": wanted},
    }
    launch = Launch(
        job_id="job_1",
        fence=1,
        project="p",
        spec=JobSpec.model_validate(spec).resolved(),
        storage=str(tmp_path),
        data_root=None,
        api_url="http://127.0.0.1:1",
        token="secret",
        ray_home=None,
        heartbeat_s=1,
        unacknowledged_limit_s=60,
    )
    run = RunDirectory(tmp_path, "job_1", 1)
    run.root.mkdir(parents=True)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(worker, "available_cpus", lambda: there)
    with pytest.raises(SpecInvalidError):
        worker.run_worker(launch, FileReporter(run))
    assert threads == [used]
