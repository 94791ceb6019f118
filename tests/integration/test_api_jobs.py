"""The life of a job over HTTP: submit, read, list, wait, cancel, pause, resume, curve, log."""

import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from jobs.data_sources import DataDescription
from jobs.states import ExitCode, Reason
from jobs.wire import Exit
from services.app import create_app
from tests.integration.api_service import BASE_URL


def test_a_submission_is_answered_with_the_job_and_where_it_is(api, spec):
    answer = api.post("/v1/jobs", json=spec)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["status"], job["attempts"]) == ("job", "queued", 0)
    assert job["spec"]["objective"]["projection_dim"] == 4, "the spec is resolved"
    read = api.get(answer.headers["location"])
    assert read.json() == job
    assert read.headers["etag"] == answer.headers["etag"]


def test_a_dry_run_tells_what_would_run_and_stores_nothing(api, spec):
    answer = api.post("/v1/jobs?dry_run=true", json=spec)
    plan = answer.json()
    assert (answer.status_code, plan["object"]) == (200, "job.plan")
    assert plan["spec"]["objective"]["projection_dim"] == 4
    assert set(plan["data"]) == set(DataDescription.__slots__)
    assert plan["data"]["image_shape"] == [1, 8, 8]
    assert api.get("/v1/jobs").json()["data"] == []


def test_the_same_idempotency_key_and_body_answer_with_the_same_job(api, spec):
    headers = {"Idempotency-Key": "once"}
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    first = api.post("/v1/jobs", json={**spec, "metadata": one}, headers=headers)
    again = api.post("/v1/jobs", json={"metadata": other, **spec}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(api.get("/v1/jobs").json()["data"]) == 1


def test_a_repeated_submission_finds_its_job_though_the_data_set_is_gone(api, spec, tmp_path):
    file = tmp_path / "data" / "mine.npz"
    file.parent.mkdir(exist_ok=True)
    images, labels = np.zeros((300, 8, 8), np.uint8), np.arange(300)
    np.savez(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    body = {**spec, "data": {"kind": "arrays", "file": "mine.npz"}}
    first = api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    file.unlink()
    again = api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert api.post("/v1/jobs", json=body).json()["code"] == "data_unavailable"


def test_the_same_idempotency_key_with_another_body_is_refused(api, spec):
    headers = {"Idempotency-Key": "once"}
    api.post("/v1/jobs", json=spec, headers=headers)
    answer = api.post("/v1/jobs", json={**spec, "seed": 1}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert "once" not in answer.text


def test_an_idempotency_key_belongs_to_its_project(service, spec):
    jobs = {
        service.client.post(
            "/v1/jobs",
            json=spec,
            headers={"Idempotency-Key": "once", **service.key(project=project)},
        ).json()["id"]
        for project in ("one", "two")
    }
    assert len(jobs) == 2


def test_a_list_is_read_page_by_page_newest_first(api, service):
    ids = [service.submit() for _ in range(5)]
    seen, path = [], "/v1/jobs?limit=2"
    for size in (2, 2, 1):
        answer = api.get(path)
        page = answer.json()
        assert (page["object"], len(page["data"])) == ("list", size)
        seen += [job["id"] for job in page["data"]]
        if page["has_more"]:
            path, rel = answer.headers["link"].strip("<").split(">; ")
            assert rel == 'rel="next"'
            assert page["next_cursor"] in path
    assert seen == ids[::-1]
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    assert "link" not in answer.headers


def test_a_list_is_narrowed_down(api, service, spec):
    running = service.submit()
    service.start(running)
    other = api.post("/v1/jobs", json={**spec, "name": "other"}).json()["id"]

    def ids(query):
        return [job["id"] for job in api.get(f"/v1/jobs?{query}").json()["data"]]

    assert ids("status=running") == [running]
    assert ids("status=queued") == [other]
    assert ids("name=other") == [other]
    assert ids("objective=mige_infomax") == [other, running]
    assert ids("status=failed") == []


def test_a_job_that_has_not_changed_is_not_sent_again(api, service):
    job_id = service.submit()
    etag = api.get(f"/v1/jobs/{job_id}").headers["etag"]
    for sent in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": sent})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    service.start(job_id)
    assert api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag}).status_code == 200


def test_waiting_ends_when_the_job_does(api, service):
    job_id = service.submit()
    fence = service.start(job_id)
    end = Exit(exit_code=ExitCode.INFEASIBLE, reason=Reason.NAN_LOSS, message="m", remedy="r")
    timer = threading.Timer(0.3, service.store.end, (job_id, fence, end))
    timer.start()
    began = time.monotonic()
    job = api.get(f"/v1/jobs/{job_id}?wait=30s&until=terminal").json()
    timer.join()
    assert (job["status"], job["reason"], job["message"], job["remedy"]) == (
        "failed",
        "nan_loss",
        "m",
        "r",
    )
    assert 0.2 < time.monotonic() - began < 10


def test_waiting_for_a_change_ends_with_the_first_one(api, service):
    job_id = service.submit()
    timer = threading.Timer(0.3, service.start, (job_id,))
    timer.start()
    job = api.get(f"/v1/jobs/{job_id}?wait=30s&until=change").json()
    timer.join()
    assert job["status"] == "running"


def test_waiting_ends_when_the_time_is_over(api, service):
    job_id = service.submit()
    began = time.monotonic()
    assert api.get(f"/v1/jobs/{job_id}?wait=1s").json()["status"] == "queued"
    assert 0.9 < time.monotonic() - began < 10


def test_a_queued_job_is_cancelled_at_once_and_twice_is_the_same(api, service):
    job_id = service.submit()
    for body in (None, {}):
        answer = api.post(f"/v1/jobs/{job_id}/cancel", json=body)
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        assert answer.json()["reason"] == "user_cancelled"
    resumed = api.post(f"/v1/jobs/{job_id}/resume")
    assert (resumed.status_code, resumed.json()["code"]) == (409, "state_conflict")
    assert resumed.json()["current_state"] == "cancelled"


def test_a_verb_takes_no_fields(api, service):
    answer = api.post(f"/v1/jobs/{service.submit()}/cancel", json={"state": "succeeded"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/state")


def test_a_running_job_is_told_to_stop_and_its_runner_hears_it(api, service):
    job_id = service.submit()
    fence = service.start(job_id)
    assert api.post(f"/v1/jobs/{job_id}/pause").json()["status"] == "pausing"
    assert api.post(f"/v1/jobs/{job_id}/resume").json()["status"] == "running"
    assert api.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelling"
    token = service.store.attempt_token(job_id, fence)
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/v1/attempts/{job_id}/{fence}"
    beat = api.post(f"{path}/heartbeat", json={"phase": "training"}, headers=headers)
    assert beat.json() == {"command": "cancel"}
    late = api.post(f"{path}/finalize", json={}, headers=headers)
    assert (late.status_code, late.json()["code"]) == (409, "state_conflict")
    end = {"exit_code": 11, "reason": "user_cancelled", "message": "stopped"}
    assert api.post(f"{path}/end", json=end, headers=headers).json() == {}
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
    stale = api.post(f"{path}/heartbeat", json={"phase": "training"}, headers=headers)
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_fence")


def test_a_runners_reports_become_progress_and_events(api, service):
    job_id = service.submit()
    fence = service.start(job_id)
    headers = {"Authorization": f"Bearer {service.store.attempt_token(job_id, fence)}"}
    report = {
        "kind": "metric",
        "at": "2026-01-01T00:00:00Z",
        "data": {"step": 3, "loss": 0.5},
        "progress": {"step": 3, "total_steps": 9, "epoch": 1, "epochs": 3, "loss": 0.5},
    }
    body = {"first": 0, "reports": [report] * 1000}
    path = f"/v1/attempts/{job_id}/{fence}/reports"
    assert api.post(path, json=body, headers=headers).json() == {"lines": 1000}
    assert api.post(path, json=body, headers=headers).json() == {"lines": 1000}
    progress = api.get(f"/v1/jobs/{job_id}").json()["progress"]
    assert (progress["step"], progress["total_steps"], progress["loss"]) == (3, 9, 0.5)
    too_many = {"first": 1000, "reports": [report] * 1001}
    assert api.post(path, json=too_many, headers=headers).status_code == 422


def test_attempts_tell_why_each_ended(api, service):
    job_id = service.submit()
    fence = service.start(job_id)
    lost = Exit(exit_code=-9, reason=Reason.DRIVER_LOST, message="killed")
    service.store.end(job_id, fence, lost)
    data = api.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert [(a["number"], a["active"], a["reason"], a["exit_code"]) for a in data] == [
        (1, False, "driver_lost", -9)
    ]


def test_the_curve_is_thinned_out_and_narrowed_down(api, service):
    job_id = service.submit()
    service.report(job_id, service.start(job_id), 0, 300)
    points = api.get(f"/v1/jobs/{job_id}/metrics?max_points=10&keys=step").json()["data"]
    assert len(points) == 10
    assert (points[0]["values"], points[-1]["values"]) == ({"step": 0}, {"step": 299})


def test_the_curve_comes_as_csv_too(api, service):
    job_id = service.submit()
    service.report(job_id, service.start(job_id), 0, 3)
    answer = api.get(f"/v1/jobs/{job_id}/metrics", headers={"Accept": "text/csv"})
    lines = answer.text.splitlines()
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert lines[0] == "attempt,at,step,loss"
    assert [line.split(",")[2:] for line in lines[1:]] == [
        ["0", "1.0"],
        ["1", "0.5"],
        ["2", "0.3333333333333333"],
    ]


def test_a_representation_that_is_not_offered_is_refused(api, service):
    job_id = service.submit()
    for path in ("metrics", "events"):
        answer = api.get(f"/v1/jobs/{job_id}/{path}", headers={"Accept": "image/png"})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


@pytest.fixture
def logged(service):
    job_id = service.submit()
    fence = service.start(job_id)
    path = service.store.run_directory(job_id, fence).log_file
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {i}\n" for i in range(5000)))
    return f"/v1/jobs/{job_id}/logs", path


def test_a_log_is_read_from_its_end(api, logged):
    url, _path = logged
    assert api.get(url, params={"tail": 2}).text == "line 4998\nline 4999\n"
    assert len(api.get(url).text.splitlines()) == 1000
    assert api.get(url, params={"tail": 0}).text == ""
    assert api.get(url).headers["content-type"] == "text/plain; charset=utf-8"
    assert api.get(url, params={"attempt": 2}).status_code == 404


def test_a_log_is_followed_by_ranges(api, logged):
    url, path = logged
    size = path.stat().st_size
    answer = api.get(url, headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, path.read_bytes()[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{size}"
    nothing_new = api.get(url, headers={"Range": f"bytes={size}-"})
    assert (nothing_new.status_code, nothing_new.headers["content-range"]) == (
        416,
        f"bytes */{size}",
    )


def test_a_large_log_is_sent_in_bounded_pieces(api, logged):
    url, path = logged
    path.write_bytes(b"x" * 70 + b"\n" + b"y" * 3_000_000 + b"\nlast\n")
    assert api.get(url, params={"tail": 1}).text == "last\n"
    assert len(api.get(url).content) <= 1024 * 1024
    assert len(api.get(url, headers={"Range": "bytes=0-"}).content) == 1024 * 1024


def test_a_log_that_was_replaced_by_a_link_is_not_followed(api, logged, tmp_path):
    url, path = logged
    path.unlink()
    (tmp_path / "secret").write_text("secret")
    path.symlink_to(tmp_path / "secret")
    answer = api.get(url)
    assert (answer.status_code, answer.json()["code"]) == (503, "artifact_corrupt")
    assert "secret" not in answer.text


def test_a_job_without_an_attempt_has_an_empty_log(api, service):
    assert api.get(f"/v1/jobs/{service.submit()}/logs").text == ""


def test_the_objectives_are_listed_with_their_schemas(api, spec):
    (objective,) = api.get("/v1/objectives").json()["data"]
    assert objective["name"] == "mige_infomax"
    schema = api.get(objective["schema_url"]).json()
    assert set(spec) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert api.get("/v1/objectives/none/schema").status_code == 404


def test_the_openapi_document_describes_problems_and_hides_the_runners_routes(api):
    document = api.get("/v1/openapi.json").json()
    assert "/v1/jobs/{job_id}/events" in document["paths"]
    assert not [path for path in document["paths"] if "attempts/" in path]
    submit = document["paths"]["/v1/jobs"]["post"]
    assert {"200", "202", "400", "401", "403", "413", "422", "429", "507"} <= set(
        submit["responses"]
    )
    assert set(submit["responses"]["422"]["content"]) == {"application/problem+json"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operations = [o["operationId"] for p in document["paths"].values() for o in p.values()]
    assert len(operations) == len(set(operations))


def test_metrics_have_labels_from_closed_sets_only(api, service):
    api.get("/v1/jobs/evil-label")
    api.get("/evil-path")
    api.request("EVIL", "/v1/jobs")
    service.submit()
    text = api.get("/metrics").text
    assert "evil" not in text.lower()
    assert 'mige_jobs{status="queued"} 1.0' in text
    assert 'mige_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text


class StuckReconciler:
    """A reconciler that has not looked at the jobs for a minute."""

    last_step_age_s = 60.0

    def run_forever(self, stop):
        stop.wait()


def test_readiness_names_what_is_in_the_way(service):
    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    app = create_app(service.settings, store=service.store, reconciler=StuckReconciler())
    with TestClient(app, base_url=BASE_URL) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
        checks = answer.json()["checks"]
        assert [name for name, check in checks.items() if not check["ok"]] == ["reconciler"]
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(("needed", "ready", "accepted"), [(1, 200, 202), (1 << 60, 503, 507)])
def test_it_is_ready_exactly_when_the_disk_has_room_for_a_job(
    api, service, spec, monkeypatch, needed, ready, accepted
):
    monkeypatch.setattr(service.store, "_min_free_bytes", needed)
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["disk"]["ok"]) == (ready, ready == 200)
    assert api.post("/v1/jobs", json=spec).status_code == accepted


def test_a_store_that_is_gone_is_a_problem_that_may_be_retried(api, service, spec):
    service.store.close()
    answer = api.post("/v1/jobs", json=spec)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["retry-after"]
    assert answer.json()["retryable"] is True
