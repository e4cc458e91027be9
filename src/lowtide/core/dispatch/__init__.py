"""Which request goes next to which replica, and what follows from its outcome."""
