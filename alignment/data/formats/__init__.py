"""What one row of other people's files says: one module a format, all of them in ``known_formats``."""
