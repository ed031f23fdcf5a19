"""The service describes itself, from its routes and its schemas."""
