"""Makes replicas that can be called from the settings of engines."""
