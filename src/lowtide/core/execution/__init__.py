"""What a worker's group commit comes to: what is stored, what it costs, who still holds what."""
