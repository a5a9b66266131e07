"""The stage manifest: which samples are kept, and whether the accounts add up."""
