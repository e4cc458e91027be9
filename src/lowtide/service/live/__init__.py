"""Services for live calls, flex calls and background responses."""
