"""HTTP itself: connections, bodies, forms, ranges, errors."""
