"""The command line. `app.main` is the entry point; one file per group of commands."""
