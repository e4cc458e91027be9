"""Adapters of `ports.engine`: what speaks to the servers that run the models."""
