"""What every request passes before its route: request id, path, authentication, foreign pages."""
