"""Request bodies: which fields they may have, how large they may be, what is kept from engines."""
