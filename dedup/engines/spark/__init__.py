"""The engine for clusters: the only place that imports pyspark."""
