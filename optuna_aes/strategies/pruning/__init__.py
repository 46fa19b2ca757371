"""Strategies that prune the columns of one full-width supernet: a fit gives a path of nested sizes."""
