"""The blobs port on a folder of this machine."""
