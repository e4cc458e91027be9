"""Adapters of the blobs port: a folder on this machine, or a bucket (S3, GCS, Azure)."""
