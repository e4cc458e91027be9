"""What happened: a batch's rates and events, and what live calls met on each replica."""
