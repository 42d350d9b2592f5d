"""What one row of other people's files says: one module a format, the table of all of them in ``row_format``."""
