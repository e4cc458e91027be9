"""Services for organizations, projects, keys, quotas and usage."""
