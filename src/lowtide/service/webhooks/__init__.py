"""The service for webhook endpoints and their deliveries."""
