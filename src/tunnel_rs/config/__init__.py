"""Configuration: one schema, sources with the origin of each value, frozen settings out."""
