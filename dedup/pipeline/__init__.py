"""A run from its configuration to its last table: which stages are due, whether the machine suffices, and the loop over them."""
