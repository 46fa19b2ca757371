"""Strategies: how a method fits its supernet and scores sizes. Pure torch; nothing here knows a study."""
