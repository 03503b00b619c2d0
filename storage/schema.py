"""The tables. A change here is a new SCHEMA_VERSION and a migration."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
    text,
)

SCHEMA_VERSION = 4

metadata = MetaData()

schema_version = Table(
    "naslite_schema",
    metadata,
    Column("version", Integer, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("state", String(20), nullable=False),
    Column("cause", Text, nullable=False, default=""),
    Column("config", JSON, nullable=False),
    Column("space", JSON, nullable=False),
    Column("task_fingerprint", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("trials", Integer, nullable=False),
    Column("minutes", Float),
    Column("facts", JSON, nullable=False),
    Column("memo", JSON, nullable=False),
    Column("seconds", Float, nullable=False, default=0.0),
    # The lease: who may write (host/pid/token), and until when (Unix seconds).
    Column("owner", String(200), nullable=False, default=""),
    Column("claimed_at", Float, nullable=False, server_default="0"),
    Column("lease_until", Float, nullable=False, default=0.0),
    # The owner's latest event: a commit whose answer was lost is recognised by it.
    Column("event", String(32), nullable=False, server_default=text("''")),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("format", String(40), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", JSON, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("study_id", ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("candidate", JSON, nullable=False),
    Column("candidate_key", String(64), nullable=False),
    Column("memo", JSON, nullable=False),
    Column("origin", String(20), nullable=False, server_default="strategy"),
    Column("attempt", Integer, nullable=False, default=1),
    Column("deaths", Integer, nullable=False, server_default="0"),
    Column("cause", Text, nullable=False, default=""),
    Column("artifact", ForeignKey("artifacts.sha256")),
    Column("seconds", Float, nullable=False, default=0.0),
    Column("reused_from", Integer),
    Column("reused_study", String(200), nullable=False, server_default=text("''")),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Index("ix_trials_artifact", "artifact"),
    Index("ix_trials_state", "study_id", "state"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("metric", String(100), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("value", Float(53), nullable=False),
    Column("unit", String(20), nullable=False, default=""),
    Column("low", Float(53)),
    Column("high", Float(53)),
    Column("n", Integer),
    Column("noisy", Boolean, nullable=False, server_default=false()),
    Column("level", Float(53), nullable=False, server_default=text("0.95")),
    ForeignKeyConstraint(
        ["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
    ),
)

# The task's records of every sample, as `search.sample_records` packs them, for comparisons.
records = Table(
    "records",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("split", String(20), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
    ),
)

# Times in which a controller ran the study: the machine, and the control of its timings.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("began_at", Float, nullable=False),
    Column("number", Integer, nullable=False),
    Column("facts", JSON, nullable=False),
    Index("ix_sessions_study", "study_id"),
)

stages = Table(
    "stages",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", String(100), nullable=False),
    Column("key", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("note", Text, nullable=False, default=""),
    # Of a training: how many it was to have, and what the model scored after each that it had.
    Column("epochs", Integer, nullable=False, server_default="0"),
    Column("scores", JSON),
    ForeignKeyConstraint(
        ["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
    ),
)

requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("studies.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("handled_at", Float),
    # The number of the first trial that was proposed after it was handled.
    Column("number", Integer),
    Column("event", String(32)),
    Index("ix_requests_event", "event", unique=True),
)

# What another study had found out about candidates when this one was created from it.
known = Table(
    "known",
    metadata,
    Column("study_id", ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("candidate_key", String(64), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("cause", Text, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("measurements", JSON, nullable=False),
    Column("artifact", ForeignKey("artifacts.sha256")),
    Column("seconds", Float, nullable=False),
    Column("reused_from", Integer),
    Column("reused_study", String(200), nullable=False),
    Column("records", LargeBinary),
    Index("ix_known_artifact", "artifact"),
)

# Written for Alembic; what counts is `naslite_schema`.
alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
