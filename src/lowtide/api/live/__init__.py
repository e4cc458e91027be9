"""The routes of live calls, flex calls and background responses."""
