"""Why a sample was kept or dropped, as data and as pictures."""
