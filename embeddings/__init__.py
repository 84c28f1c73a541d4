"""Vectors and regions: encoders, clustering, the routing index. Knows nothing of prompts or language models."""
