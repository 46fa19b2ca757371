"""DNIS: a soft selection of every field's columns, trained on validation batches beside the weights."""
