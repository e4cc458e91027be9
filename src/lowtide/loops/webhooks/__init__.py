"""The loop that delivers events to webhook endpoints."""
