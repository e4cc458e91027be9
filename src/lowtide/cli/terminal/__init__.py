"""What a person or a script sees: tables, progress bars, errors and exit codes."""
