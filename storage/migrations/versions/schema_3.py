"""Levels of intervals, records of samples, sessions of controllers; counts by state are fast."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    level = sa.Column("level", sa.Float(53), nullable=False, server_default=sa.text("0.95"))
    op.add_column("measurements", level)
    op.add_column("known", sa.Column("records", sa.LargeBinary))
    op.create_index("ix_trials_state", "trials", ["study_id", "state"])
    op.create_table(
        "records",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("split", sa.String(20), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "number"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
        ),
    )
    study = sa.ForeignKey("studies.id", ondelete="CASCADE")
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study_id", sa.Integer, study, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_index("ix_sessions_study", "sessions", ["study_id"])
