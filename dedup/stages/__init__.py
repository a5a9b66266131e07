"""Stages: plain functions over tables; an engine, handed in, carries the work."""
