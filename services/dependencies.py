"""What routes need, taken from the application that `services.app.create_app` built.

These are coroutines although nothing is awaited: FastAPI would run each plain function in a thread.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from jobs.store import Store
from services.context import ServiceContext


async def service_context(request: Request) -> ServiceContext:
    """Everything that was built once for this application."""
    context: ServiceContext = request.app.state.context
    return context


ContextDep = Annotated[ServiceContext, Depends(service_context)]


async def job_store(context: ContextDep) -> Store:
    """The store."""
    return context.store


StoreDep = Annotated[Store, Depends(job_store)]
