"""Services for files and uploads."""
