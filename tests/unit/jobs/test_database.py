import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable

from jobs import database
from jobs.errors import SettingsError
from jobs.migrations.upgrade import alembic_config
from jobs.store import open_store
from jobs.tables import metadata

ROOT = Path(__file__).parents[3]


@pytest.fixture
def engine(tmp_path):
    engine = database.writer_engine(tmp_path / "a.db")
    yield engine
    engine.dispose()


def schema(connection) -> dict[str, list[str]]:
    """Every object's SQL; of a table its parts in order of the alphabet, not of their writing."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL")
    found = {}
    for name, sql in rows:
        if name.startswith(("alembic", "sqlite")):
            continue
        text = re.sub(r"\s+", " ", sql)
        if text.startswith("CREATE TABLE"):
            body = text[text.index("(") + 1 : text.rindex(")")]
            found[name] = sorted(part.strip() for part in body.split(", "))
        else:
            found[name] = [text]
    return found


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(engine, tmp_path):
    database.migrate(engine)
    fresh = database.writer_engine(tmp_path / "b.db")
    with fresh.begin() as connection:
        metadata.create_all(connection)
    with engine.connect() as migrated, fresh.connect() as created:
        context = MigrationContext.configure(migrated, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert schema(migrated) == schema(created)
        assert {"jobs", "one_active", "terminal_state"} <= schema(migrated).keys()
    fresh.dispose()


def test_the_head_revision_is_the_newest_script():
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == (
        database.HEAD_REVISION
    )


def test_migrating_again_changes_nothing(engine):
    database.migrate(engine)
    with engine.connect() as connection:
        before = schema(connection)
    database.migrate(engine)
    with engine.connect() as connection:
        assert schema(connection) == before


def test_a_migration_that_was_killed_left_nothing_and_runs_again(tmp_path):
    home = tmp_path / "home"
    code = (
        "import sys; from pathlib import Path; from jobs.store import open_store;"
        "open_store('sqlite:///' + sys.argv[1] + '/mige.db', home=Path(sys.argv[1])).close()"
    )
    environment = {**os.environ, "FAILPOINTS": "migrate.mid=kill"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(home)], env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == -9
    killed = database.writer_engine(home / "mige.db")
    with killed.connect() as connection:
        assert schema(connection) == {}
    killed.dispose()
    store = open_store(f"sqlite:///{home}/mige.db", home=home)
    assert store.jobs(project="p").items == ()
    store.close()


def test_a_database_of_a_newer_version_is_refused(engine):
    database.migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="9999"):
        database.migrate(engine)


@pytest.mark.parametrize("version", [(3, 40, 1), (3, 51, 2)])
def test_a_sqlite_that_can_corrupt_the_database_is_refused(version):
    with pytest.raises(SettingsError, match="pysqlite3"):
        database.check_sqlite_version(version)
    database.check_sqlite_version((3, 51, 3))


def test_the_driver_in_use_is_a_safe_one():
    assert database.sqlite_driver().sqlite_version_info >= (3, 51, 3)


def test_connections_have_the_settings_that_durability_needs(engine, tmp_path):
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "trusted_schema": 0,
        "mmap_size": 0,
    }
    with engine.connect() as connection:
        connection.commit()
        found = {k: connection.exec_driver_sql(f"PRAGMA {k}").scalar() for k in wanted}
    assert found == wanted
    readers = database.reader_engine(tmp_path / "a.db")
    with readers.connect() as connection:
        found = {k: connection.exec_driver_sql(f"PRAGMA {k}").scalar() for k in wanted}
        assert found == wanted
        with pytest.raises(DBAPIError, match="readonly"):
            connection.exec_driver_sql("CREATE TABLE t (a)")
    readers.dispose()


def test_the_database_file_is_readable_by_its_owner_only(engine, tmp_path):
    database.migrate(engine)
    with engine.connect():
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), 0o600)


@pytest.mark.parametrize(
    "url", ["postgresql://localhost/mige", "sqlite://", "sqlite:///:memory:", "nonsense"]
)
def test_a_url_that_cannot_work_is_named(url):
    with pytest.raises(SettingsError, match="database_url"):
        database.database_path(url)


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be opened"):
        database.writer_engine(tmp_path / "file" / "mige.db")


def test_the_tables_can_be_made_on_postgresql():
    dialect = postgresql.dialect()
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE" in str(CreateIndex(index).compile(dialect=dialect))


# --- what the database refuses, whatever the code does ----------------------------------------


def sql(store, statement: str) -> None:
    with store._writer_engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET state = 'succeeded', owner = NULL, finished_at = created_at",
        "UPDATE jobs SET encoder_id = 'enc_1'",
        "UPDATE jobs SET owner = NULL",
        "UPDATE jobs SET state = 'queued'",
        "UPDATE jobs SET finished_at = created_at",
        "UPDATE jobs SET state = 'elsewhere'",
        "UPDATE jobs SET desired_state = 'elsewhere'",
        "UPDATE jobs SET fence = -1",
        "UPDATE attempts SET state = 'ended'",
        "INSERT INTO attempts SELECT job_id, 2, owner, 'active', 0, 0, NULL, NULL, NULL, NULL,"
        " started_at, NULL FROM attempts",
        "INSERT INTO attempts SELECT 'job_x', 1, owner, 'active', 0, 0, NULL, NULL, NULL, NULL,"
        " started_at, NULL FROM attempts",
    ],
)
def test_the_database_refuses_rows_that_cannot_be(bench, statement):
    bench.running()
    with pytest.raises(IntegrityError):
        sql(bench.store, statement)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_the_database_refuses_to_revive_a_finished_job(bench, state):
    job_id = getattr(bench, state)()
    with pytest.raises(IntegrityError, match="does not change its state"):
        sql(
            bench.store,
            "UPDATE jobs SET state = 'queued', finished_at = NULL, encoder_id = NULL"
            f" WHERE id = '{job_id}'",
        )


def test_the_database_refuses_a_second_encoder_of_a_job(bench):
    bench.succeeded()
    with pytest.raises(IntegrityError, match="job_id"):
        sql(
            bench.store,
            "INSERT INTO encoders SELECT 'enc_2', job_id, project, name, 2, manifest, evaluation,"
            " created_at FROM encoders",
        )


def test_the_standard_library_reads_the_same_file(bench, home):
    job_id = bench.queued()
    bench.store.close()
    connection = sqlite3.connect(home / "mige.db")
    assert connection.execute("SELECT id FROM jobs").fetchall() == [(job_id,)]
    connection.close()
