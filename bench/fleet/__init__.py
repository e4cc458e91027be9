"""A fleet of engines that come and go, several processes that are killed, and millions of lines."""
