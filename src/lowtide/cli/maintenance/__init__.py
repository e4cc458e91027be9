"""`lowtide backup`, `lowtide restore` and `lowtide simulate-engine`."""
