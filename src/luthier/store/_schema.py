"""Tables and their versions. A released schema never changes; a new one is a new migration."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from luthier.errors import StoreError

VERSION = 2

TABLES = MetaData()

schema = Table("luthier_schema", TABLES, Column("version", Integer, primary_key=True))

studies = Table(
    "luthier_studies",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("key", String(32), nullable=False, unique=True),
    Column("header", Text, nullable=False),  # JSON, the name included
    Column("created", Double, nullable=False),
    Column("spent", Double, nullable=False, default=0.0),  # seconds
    Column("token", String(32)),  # the lease; NULL: nobody's
    Column("host", Text),
    Column("pid", BigInteger),
    Column("born", Double),
    Column("beat", Double, nullable=False, default=0.0),  # last sign of life, seconds since 1970
)

trials = Table(
    "luthier_trials",
    TABLES,
    Column("study", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
    Column("params", Text, nullable=False),  # JSON
    Column("proposed_by", String(16), nullable=False),
    Column("pending", Text, nullable=False),  # JSON: the earlier trials that had not ended when it was proposed
    Column("metrics", Text),  # JSON, or NULL while it runs
    Column("cause", Text),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("starts", Integer, nullable=False, default=1),  # how often it was begun since it last paused
    Column("legs", Text),  # JSON: [turn, step] of each run where a stop rule pauses trials; NULL: one run
    Column("level", Integer, nullable=False, server_default="0"),  # how far the algorithm had been made cheaper
)

reports = Table(
    "luthier_reports",
    TABLES,
    Column("study", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("metrics", Text, nullable=False),  # JSON
)

# _MIGRATIONS[v] holds the statements that lead from version v to v + 1.
_MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE luthier_trials ADD COLUMN legs TEXT",
        "ALTER TABLE luthier_trials ADD COLUMN level INTEGER NOT NULL DEFAULT 0",
    ),
}


def current(connection: Connection) -> bool:
    """Whether the tables are there and of this version: then nothing has to be written to read them."""
    return inspect(connection).has_table(schema.name) and _found(connection) == VERSION


def prepare(connection: Connection, place: str) -> None:
    """Makes the tables, or brings those of an older version up to date.

    Raises:
        StoreError: a newer version wrote them.
    """
    if connection.dialect.name == "postgresql":  # one at a time; SQLite's writers wait for each other anyway
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(6118432)")
    if not inspect(connection).has_table(schema.name):
        TABLES.create_all(connection)
        connection.execute(insert(schema).values(version=VERSION))
        return
    found = _found(connection)
    if found > VERSION:
        raise StoreError(
            f"the store {place} was written by a newer version of Luthier",
            expected=f"schema {VERSION} or older",
            got=f"schema {found}",
            fix="pip install --upgrade luthier",
        )
    for version in range(found, VERSION):
        for statement in _MIGRATIONS[version]:
            connection.exec_driver_sql(statement)
    if found < VERSION:
        connection.execute(update(schema).values(version=VERSION))


def _found(connection: Connection) -> int:
    found = int(connection.execute(select(schema.c.version)).scalar() or 0)
    if found < 1:
        raise ValueError(f"schema {found}")
    return found
