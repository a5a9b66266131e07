"""Threshold advice: what each threshold would find among a run's own images, and what it would join wrongly."""
