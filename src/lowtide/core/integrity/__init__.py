"""What rows and blobs must agree on, and what a backup says of itself."""
