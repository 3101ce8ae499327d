"""The ledger: one append-only table, its indexes, and triggers that refuse every change to a row.

A later migration may add indexes or further tables. It never touches what is hashed: the columns of this table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

REFUSED = "The ledger is append-only: void the row instead."


def upgrade() -> None:
    # Text is compared byte by byte: natural keys are not words of a language.
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    whole = sa.BigInteger()
    types = {
        "study": text,
        "seq": whole,
        "key": text,
        "revision": whole,
        "kind": text,
        "kind_version": whole,
        "site_id": text,
        "participant_id": text,
        "occurred_on": text,
        "recorded_at": text,
        "requested_by": text,
        "source_sha256": text,
        "source_sheet": text,
        "source_row": whole,
        "payload": text,
        "content_hash": text,
        "voids": text,
        "previous_hash": text,
        "hash_version": whole,
        "hash": text,
    }
    op.create_table(
        "ledger",
        *(sa.Column(name, kind, nullable=False) for name, kind in types.items()),
        sa.PrimaryKeyConstraint("study", "seq", name="ledger_seq"),
        sa.UniqueConstraint("study", "key", "revision", name="ledger_key"),
    )
    for name, column in {"participant": "participant_id", "site": "site_id", "kind": "kind"}.items():
        op.create_index(f"ledger_{name}", "ledger", ["study", column, "seq"])
    # A void finds its row by hash. Hashes fall anywhere in the index: its first digits keep it small enough to stay in
    # memory, or every append would rewrite a good part of it.
    op.create_index("ledger_hash", "ledger", [sa.text("substr(hash, 1, 16)")])
    voids = sa.text("voids <> ''")
    op.create_index("ledger_voids", "ledger", ["study", "voids"], sqlite_where=voids, postgresql_where=voids)
    for statement in TRIGGERS[op.get_bind().dialect.name]:
        op.execute(statement)


TRIGGERS = {
    "sqlite": [
        f"CREATE TRIGGER ledger_no_{change} BEFORE {change} ON ledger BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
        for change in ("update", "delete")
    ],
    "postgresql": [
        "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$",
        "CREATE TRIGGER ledger_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()",
    ],
}
