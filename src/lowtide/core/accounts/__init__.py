"""Organizations, projects, prices, charges and rates."""
