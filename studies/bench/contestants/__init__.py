"""Who takes part in the training benchmark: us, bare loops written for it, and the field's libraries."""
