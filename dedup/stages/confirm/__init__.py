"""The stage confirm: candidates are compared by their pixels."""
