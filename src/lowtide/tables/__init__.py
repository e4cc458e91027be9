"""Tables in and out of a batch: rows become requests, and answers become columns of the same rows.

`lowtide run` calls this package on the submitter's side only; a server sees nothing but JSONL.
It needs the extra `lowtide[tables]` (pyarrow and Jinja2), reads and writes in batches of
`limits.TABLE_BATCH_ROWS` rows, and never holds a whole table. Errors are `TableError`.
"""
