"""The commands of ``python -m annotation_ui``."""
