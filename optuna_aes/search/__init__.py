"""A search in three stages, each an Optuna study: fit the supernet, search sizes in it, retrain the best from scratch."""
