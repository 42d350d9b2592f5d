"""What people said, as rows: the tables, and one module for each kind of row."""
