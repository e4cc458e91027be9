"""The objects that answers are made of, in each vendor's shape."""
