"""Pages of organizations, projects, keys and usage."""
