"""Engines carry tasks and tables through stages."""
