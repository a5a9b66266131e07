"""The stage index: distinct images and the lists they are searched in."""
