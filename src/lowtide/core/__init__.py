"""The pure core: types, state tables, decisions. No I/O, clock, randomness, logging or async."""
