"""Protocols whose docstrings are the contract. Adapters implement them; nothing here does work."""
