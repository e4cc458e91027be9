"""`lowtide run`: from an input file to its results in one command."""
