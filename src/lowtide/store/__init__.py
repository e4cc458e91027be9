"""The SQL adapter of `ports.store`: one set of statements for SQLite and PostgreSQL."""
