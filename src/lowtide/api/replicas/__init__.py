"""What the HTTP API tells administrators about replicas and the workers that have them."""
