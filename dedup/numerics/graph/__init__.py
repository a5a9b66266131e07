"""Graphs of pairs: components, spanning forests, groups about an anchor, cliques."""
