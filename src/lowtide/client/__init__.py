"""The Python interface: `lowtide.map` over rows in memory, and `lowtide.Client` for batches.

`lowtide/__init__.py` exports it and loads it when it is first used. It does what the command line
does, with the same machinery (`cli/tables`, `cli/run`, `cli/client`), and says it in the words of
Python: arguments instead of options, `Error` instead of exit codes.
"""
