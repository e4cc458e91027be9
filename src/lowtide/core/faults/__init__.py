"""What a call came to, and whose fault a failure is: the request's, the replica's or the
network's."""
