"""Run by `Ledger.open` on its own connection and inside its transaction: several processes may open a new ledger."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="ledger_migration")
context.run_migrations()
