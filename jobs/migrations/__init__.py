"""Alembic revisions, shipped inside the package. `upgrade.upgrade` applies them."""
