"""The admin, usage and whoami routes."""
