"""The epochs of trainings, and what the model scored after each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    epochs = sa.Column("epochs", sa.Integer, nullable=False, server_default="0")
    op.add_column("stages", epochs)
    op.add_column("stages", sa.Column("scores", sa.JSON))
