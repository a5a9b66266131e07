"""The stage pairs: candidates, the pairs of images whose vectors are alike."""
