"""Tables, rows and migrations."""
