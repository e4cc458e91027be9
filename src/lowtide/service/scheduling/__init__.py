"""Who is next, and when it will be done: the backlog as one process reads it."""
