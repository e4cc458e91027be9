"""The blobs port on a bucket: S3, Google Cloud Storage, Azure."""
