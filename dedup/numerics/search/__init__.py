"""Which vectors are alike: lists, joins, exhaustive search, on the CPU or a GPU."""
