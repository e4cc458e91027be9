"""Loops that watch replicas: which exist, who owns them, what they report, how much they take."""
