"""Commands for organizations, projects, keys and usage, and the backends that answer them."""
