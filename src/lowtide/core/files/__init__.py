"""Files, uploads in parts, and the storage that they take."""
