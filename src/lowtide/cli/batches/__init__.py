"""Commands for files and batches: `files`, `batches`, `validate`, and their reports."""
