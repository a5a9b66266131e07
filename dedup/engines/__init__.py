"""Engines run tasks and queries: on one machine, or on a Spark cluster."""
