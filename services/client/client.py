"""The client: one method per thing a person does with the service."""

from __future__ import annotations

import io
import json
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import httpx2

from services.client.credentials import find_credentials, is_loopback
from services.client.download import FileDownload, OnBytes, remote_files, select
from services.client.errors import ApiError, DownloadError, WaitTimeoutError
from services.client.events import follow_events
from services.client.logs import TERMINAL, follow_logs
from services.client.transport import Clock, Patience, RequestOptions, Transport

if TYPE_CHECKING:
    import numpy as np

    from jobs.spec import JobSpec

_PAGE = 100
_NPY = "application/octet-stream"
_JSON_TYPE = {"Content-Type": "application/json"}
_EMBED_BYTES = 16 * 1024 * 1024  # of images in one request; the service takes twice that

Resource = dict[str, Any]
"""A JSON object as the service sent it; see the REST walk-through for its fields."""


class Client:
    """Talks to one service; a context manager. Safe to use from one thread at a time.

    Requests that fail for a passing reason (no connection, 429, 502, 503, 504) are sent again with
    jittered back-off for a bounded time. A submission carries an idempotency key, so that a retry
    never makes a second job.

    Example:
        >>> with Client() as client:
        ...     job = client.submit(json.loads(Path("digits.json").read_text()))
        ...     job = client.wait(job["id"])
        ...     client.download(job["encoder_id"], "encoder")
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
        clock: Clock | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Find the service; send nothing yet.

        Args:
            url: base URL; None: `MIGE_API_URL`, then `<home>/credentials.json`.
            api_key: bearer key; None: `MIGE_API_KEY`, then the same file.
            timeout_s: longest silence within one request.
            patience: how long to try again; None: the defaults of `Patience`.
            clock: replaces time, for tests.
            transport: replaces the network, for tests and proxies.

        Raises:
            CredentialsError: URL or key are nowhere to be found.
        """
        credentials = find_credentials(url, api_key)
        self.url = credentials.url
        self._http = httpx2.Client(
            base_url=credentials.url,
            headers={"Authorization": f"Bearer {credentials.api_key}"},
            timeout=timeout_s,
            transport=transport,
            # A proxy of the environment cannot reach our loopback, and must not see the key.
            trust_env=not is_loopback(credentials.url),
        )
        self._timeout_s = timeout_s
        self._transport = Transport(self._http, patience=patience, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    # --- jobs -----------------------------------------------------------------------------------

    def submit(
        self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Resource:
        """Submit a job.

        Args:
            spec: the job; a mapping is sent as it is and checked by the service.
            idempotency_key: the same key and spec answer with the same job; None: a new key.

        Raises:
            ApiError: the spec was refused; `errors` names the fields.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4()), **_JSON_TYPE}
        return self._json("POST", "/v1/jobs", content=_encoded(spec), headers=headers)

    def plan(self, spec: JobSpec | Mapping[str, Any]) -> Resource:
        """Check a spec without submitting it; answers with the spec that would be run."""
        return self._json(
            "POST",
            "/v1/jobs",
            content=_encoded(spec),
            headers=_JSON_TYPE,
            params={"dry_run": "true"},
        )

    def job(self, job_id: str) -> Resource:
        """Read one job."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Resource]:
        """Iterate over the jobs, newest first, page after page; at most `limit` of them."""
        return self._pages("/v1/jobs", {"status": status}, limit)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Resource], None] | None = None,
    ) -> Resource:
        """Wait until a job has ended, and read it.

        Args:
            job_id: the job.
            timeout_s: how long to wait; None: as long as it takes.
            on_progress: called with the job about once a second.

        Raises:
            WaitTimeoutError: it has not ended in time; it goes on.
        """
        deadline = None if timeout_s is None else self._transport.now() + timeout_s
        step_s = 1 if on_progress is not None else 20
        while True:
            left = step_s if deadline is None else deadline - self._transport.now()
            # Whole seconds, rounded up: in the last one, 0 would ask again and again.
            pause_s = max(0, min(step_s, math.ceil(left)))
            job = self._json(
                "GET",
                f"/v1/jobs/{job_id}",
                params={"wait": f"{pause_s}s", "until": "terminal"},
                timeout=self._timeout_s + pause_s,
            )
            if on_progress is not None:
                on_progress(job)
            if job["status"] in TERMINAL:
                return job
            if deadline is not None and self._transport.now() >= deadline:
                raise WaitTimeoutError(job_id, job["status"], timeout_s or 0.0)

    def cancel(self, job_id: str) -> Resource:
        """Ask for the end of a job; asking twice is the same."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> Resource:
        """Ask a job to save its state and give its resources back."""
        return self._json("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> Resource:
        """Queue a paused job again; it goes on from its last checkpoint."""
        return self._json("POST", f"/v1/jobs/{job_id}/resume")

    def events(self, job_id: str, *, after: int = 0, follow: bool = True) -> Iterator[Resource]:
        """Iterate over a job's events, each once, in order.

        Args:
            job_id: the job.
            after: begin after the event with this number (`seq`).
            follow: wait for more until the job has ended, across restarts of the service.
        """
        if follow:
            return follow_events(self._transport, job_id, after)
        return self._stored_events(job_id, after)

    def logs(self, job_id: str, *, attempt: int | None = None, tail: int | None = None) -> str:
        """Read what an attempt wrote (None: the last one); only the last `tail` lines, if given."""
        params = _without_none({"attempt": attempt, "tail": tail})
        return self._transport.request("GET", f"/v1/jobs/{job_id}/logs", params=params).text

    def follow_logs(self, job_id: str, *, attempt: int | None = None) -> Iterator[str]:
        """Iterate over what a job writes, piece by piece, until it has ended.

        Args:
            job_id: the job.
            attempt: only this one; None: the current one and those that follow.
        """
        return follow_logs(self._transport, job_id, attempt)

    def metrics(
        self, job_id: str, *, keys: Sequence[str] | None = None, max_points: int = 1000
    ) -> list[Resource]:
        """Read the training curve, thinned out to `max_points`; only `keys`, if given."""
        params = _without_none({"keys": ",".join(keys) if keys else None, "max_points": max_points})
        data: list[Resource] = self._json("GET", f"/v1/jobs/{job_id}/metrics", params=params)[
            "data"
        ]
        return data

    def attempts(self, job_id: str) -> list[Resource]:
        """Read how often a job was started, and why each attempt ended."""
        data: list[Resource] = self._json("GET", f"/v1/jobs/{job_id}/attempts")["data"]
        return data

    # --- encoders -------------------------------------------------------------------------------

    def encoders(self, *, limit: int | None = None) -> Iterator[Resource]:
        """Iterate over the published encoders, newest first."""
        return self._pages("/v1/encoders", {}, limit)

    def encoder(self, encoder_id: str) -> Resource:
        """Read one encoder."""
        return self._json("GET", f"/v1/encoders/{encoder_id}")

    def manifest(self, encoder_id: str) -> Resource:
        """Read which files an encoder has, with size and sha256."""
        return self._json("GET", f"/v1/encoders/{encoder_id}/manifest")

    def download(
        self,
        encoder_id: str,
        directory: str | Path,
        *,
        files: Sequence[str] | None = None,
        progress: OnBytes | None = None,
    ) -> Path:
        """Download an encoder; what was cut off goes on where it ended, every byte is verified.

        Args:
            encoder_id: the encoder.
            directory: where to; made if missing.
            files: which files; None: all.
            progress: called with file name, bytes here, size.

        Returns:
            The directory, which `mige.load_encoder` opens.

        Raises:
            DigestMismatchError: a file's bytes are wrong; none of them are kept.
            DownloadError: the directory cannot be written, or there is no such file.
        """
        wanted = select(remote_files(self.manifest(encoder_id)), files)
        directory = Path(directory)
        base = f"/v1/encoders/{encoder_id}/files"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for file in wanted:
                url = f"{base}/{file.path}"
                FileDownload(self._transport, url, file, directory, progress or _ignore).run()
        except OSError as exc:
            raise DownloadError(f"{exc.filename or directory}: {exc.strerror or exc}") from exc
        return directory

    def embed(self, encoder_id: str, images: np.ndarray) -> np.ndarray:
        """Embed images with a published encoder.

        Many images travel in several requests.

        Args:
            encoder_id: the encoder.
            images: (n, channels, height, width), uint8 in 0 … 255 or floats in [0, 1].

        Returns:
            float32, (n, out_dim).

        Raises:
            ApiError: the images do not fit the encoder.
        """
        import numpy as np  # only this method needs it, and it is slow to import

        images = np.asarray(images)
        num_requests = max(1, -(-images.nbytes // _EMBED_BYTES))
        parts = np.array_split(images, num_requests) if num_requests > 1 else [images]
        answers = [self._embed(encoder_id, part) for part in parts]
        return np.concatenate([np.load(io.BytesIO(a), allow_pickle=False) for a in answers])

    def _embed(self, encoder_id: str, images: np.ndarray) -> bytes:
        """One request: npy there, npy back."""
        import numpy as np

        body = io.BytesIO()
        np.save(body, images, allow_pickle=False)
        path = f"/v1/encoders/{encoder_id}/embed"
        headers = {"Content-Type": _NPY, "Accept": _NPY}
        return self._transport.request(
            "POST", path, content=body.getvalue(), headers=headers
        ).content

    # --- the service itself ---------------------------------------------------------------------

    def health(self) -> Resource:
        """Read how ready the service is; `status` is `ready` where it can take work."""
        response = self._transport.request("GET", "/readyz", accept=lambda s: s in (200, 503))
        return _object(response)

    def _json(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Resource:
        return _object(self._transport.request(method, path, **options))

    def _pages(
        self, path: str, filters: Mapping[str, Any], limit: int | None
    ) -> Iterator[Resource]:
        cursor, left = None, limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = self._json(
                "GET", path, params=_without_none({**filters, "limit": size, "cursor": cursor})
            )
            yield from page["data"]
            left = None if left is None else left - len(page["data"])
            cursor = page.get("next_cursor")
            if not page.get("has_more") or cursor is None:
                return

    def _stored_events(self, job_id: str, after: int) -> Iterator[Resource]:
        while True:
            page = self._json("GET", f"/v1/jobs/{job_id}/events", params={"after": after})
            yield from page["data"]
            if not page["data"] or not page.get("has_more"):
                return
            after = page["data"][-1]["seq"]


def _encoded(spec: JobSpec | Mapping[str, Any]) -> bytes:
    """A spec as it is, NaN included: the service refuses it with a pointer to its place."""
    body = dict(spec) if isinstance(spec, Mapping) else spec.model_dump(mode="json")
    return json.dumps(body).encode()


def _object(response: httpx2.Response) -> Resource:
    body = response.json()
    if not isinstance(body, dict):
        raise ApiError(response.status_code, {"title": "The answer is not a JSON object"})
    return body


def _without_none(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def _ignore(_name: str, _here: int, _size: int) -> None:
    """Progress that nobody asked for."""
