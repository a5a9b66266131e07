"""Two pictures compared: laid over each other, then tile by tile."""
