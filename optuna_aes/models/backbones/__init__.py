"""Backbones: from groups of field embeddings to a logit, over one interface. Their names are in ``registry``."""
