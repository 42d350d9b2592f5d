"""The frozen base with its named adapters, reward heads, reward models and sampling."""
