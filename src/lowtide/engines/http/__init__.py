"""The HTTP client for engines: one HTTP/1.1 address behind `ports.engine.Engine`."""
