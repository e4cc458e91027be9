"""Loops that run requests: lease, dispatch, attempt, commit."""
