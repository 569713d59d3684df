"""Doors to other libraries. Each is imported by its own name, and only then imports its library."""
