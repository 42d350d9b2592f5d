"""Every setting of every stage with type, default, unit and source, and reading a recipe. No torch."""
