"""How much a replica can take: its window, its prefill, and room for live calls."""
