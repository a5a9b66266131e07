"""The stage groups: confirmed pairs become groups of copies."""
