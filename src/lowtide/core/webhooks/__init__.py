"""Webhooks: endpoints, events, deliveries, their signatures, and which addresses may be called."""
