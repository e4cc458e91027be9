"""The client that commands use to call a server."""
