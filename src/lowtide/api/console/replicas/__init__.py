"""Pages of engines and of the week."""
