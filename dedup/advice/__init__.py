"""What helps a person judge a run."""
