"""The state of a simulated engine: its requests, and the KV cache whose blocks they hold."""
