"""How far annotators agree, and what else a report says of their work."""
