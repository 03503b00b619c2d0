"""Who chose a candidate, deaths of workers, noisy timings, known facts, the history of budgets;
events are known again by their tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    # Columns are added, never tables copied: SQLite would take the rows that refer to them along.
    _add("studies", sa.Column("claimed_at", sa.Float, nullable=False, server_default="0"))
    _add("studies", sa.Column("event", sa.String(32), nullable=False, server_default=""))
    _add("trials", sa.Column("origin", sa.String(20), nullable=False, server_default="strategy"))
    _add("trials", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    _add("trials", sa.Column("reused_study", sa.String(200), nullable=False, server_default=""))
    _add("measurements", sa.Column("noisy", sa.Boolean, nullable=False, server_default=sa.false()))
    _add("requests", sa.Column("number", sa.Integer))
    _add("requests", sa.Column("event", sa.String(32)))
    op.create_index("ix_requests_event", "requests", ["event"], unique=True)
    op.create_table(
        "known",
        _study_id(primary_key=True),
        sa.Column("candidate_key", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("measurements", sa.JSON, nullable=False),
        sa.Column("artifact", sa.String(64), sa.ForeignKey("artifacts.sha256")),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("reused_from", sa.Integer),
        sa.Column("reused_study", sa.String(200), nullable=False),
    )
    op.create_index("ix_known_artifact", "known", ["artifact"])
    _set_origins()


def _add(table: str, column: sa.Column[object]) -> None:
    op.add_column(table, column)


def _set_origins() -> None:
    """Trial 0 is the baseline, then come the candidates that the config names."""
    studies = sa.table("studies", sa.column("id"), sa.column("config", sa.JSON))
    trials = sa.table("trials", *map(sa.column, ("study_id", "number", "origin")))
    connection = op.get_bind()
    connection.execute(trials.update().where(trials.c.number == 0).values(origin="baseline"))
    for study_id, config in connection.execute(sa.select(studies)).all():
        count = len(config.get("enqueue") or [])
        connection.execute(
            trials.update()
            .where(trials.c.study_id == study_id, trials.c.number.between(1, count))
            .values(origin="enqueued")
        )


def _study_id(*, primary_key: bool = False) -> sa.Column[int]:
    owner = sa.ForeignKey("studies.id", ondelete="CASCADE")
    return sa.Column("study_id", sa.Integer, owner, primary_key=primary_key, nullable=False)
