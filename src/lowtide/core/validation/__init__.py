"""One streaming pass over an input file: its lines, their errors, and the plan."""
