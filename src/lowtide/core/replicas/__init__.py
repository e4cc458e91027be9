"""Which replicas exist, what they serve, and which worker owns them."""
