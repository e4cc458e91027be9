"""`lowtide webhooks`: endpoints of a project, and what was delivered to them."""
