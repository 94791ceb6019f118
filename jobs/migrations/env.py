"""What Alembic runs: always online, on the connection that `upgrade` hands over."""

from __future__ import annotations

from alembic import context

from jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # our SQLite connections begin transactions themselves
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
