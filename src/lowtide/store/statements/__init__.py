"""The SQL statements and the decisions beside them; the adapters call them in a transaction."""
