"""Stages: each reads tables of those before it and writes its own; an engine, handed in, carries the work."""
