"""Live calls, flex calls and background responses, and where a live call goes."""
