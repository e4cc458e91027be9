"""The routes of webhook endpoints and their deliveries."""
