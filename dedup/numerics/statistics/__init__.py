"""Estimates with their intervals: shares, tails, drift."""
