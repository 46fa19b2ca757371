"""Models: embeddings, backbones, the supernet, and the one training loop."""
