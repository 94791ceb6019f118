"""The application: everything is built here, nothing at import."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from jobs.store import Store
from services.artifact_files import ArtifactFiles
from services.body_guard import BodyGuard
from services.context import Background, ServiceContext
from services.errors import install_error_handlers
from services.inference import EncoderPool
from services.metrics import RequestMetrics
from services.request_context import RequestContext
from services.routes import (
    attempts,
    encoders,
    health,
    job_output,
    jobs,
    objectives,
    problems,
    service,
)
from services.settings import Settings

_ROUTERS = tuple(
    module.router
    for module in (jobs, job_output, encoders, objectives, attempts, health, service, problems)
)
_STOP_S = 10.0


def create_app(
    settings: Settings, *, store: Store, reconciler: Background | None = None
) -> FastAPI:
    """Build the application.

    Args:
        settings: of the service.
        store: open; whoever opened it closes it after the application has ended.
        reconciler: run in a thread as long as the application lives; None: somebody else runs it.
    """
    files = ArtifactFiles(store.objects)
    context = ServiceContext(
        settings=settings,
        store=store,
        files=files,
        encoders=EncoderPool(
            files, max_bytes=settings.inference_bytes, num_threads=settings.inference_threads
        ),
        metrics=RequestMetrics(),
        reconciler=reconciler,
    )
    app = FastAPI(
        title="MIGE service",
        version="1",
        description="Trains encoders with mutual information gradients; publishes and serves them.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.context = context
    for router in _ROUTERS:
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(BodyGuard)  # the last one added is the outermost
    app.add_middleware(RequestContext, allowed_hosts=settings.host_names, metrics=context.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the reconciler beside the application."""
    context: ServiceContext = app.state.context
    if context.reconciler is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(
        target=context.reconciler.run_forever, args=(stop,), name="reconciler", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await run_in_threadpool(thread.join, _STOP_S)


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name
