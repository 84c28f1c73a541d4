"""Language models: requests, the client, the ledger, budgets, and local weights. Knows nothing of prompts' meaning."""
