"""Baselines that search AdaS&S's supernet by other means."""
