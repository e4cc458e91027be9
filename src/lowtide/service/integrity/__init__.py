"""Finds rows and blobs that disagree, and repairs them."""
