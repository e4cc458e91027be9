"""From the settings of engines to replicas that can be called."""
