"""Search: how prompts and mixtures are found. Knows prompts, metrics, the model client and regions; no front."""
