"""The stage confirm: the pixels of candidates are compared."""
