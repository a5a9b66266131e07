"""The stage pairs: candidates are pairs of images whose vectors are alike."""
