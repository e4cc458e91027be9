"""The schema's history, one numbered revision a file; run by store/schema/migrate.py."""
