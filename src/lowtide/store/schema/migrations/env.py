"""Alembic's entry: runs the revisions on the connection and inside the transaction it is given."""

from alembic import context

from lowtide.store.schema.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
