"""A search on several machines: its calls are answered by the workers of a Dask cluster, in groups, through joblib.

The search itself stays in one process, and so do its decisions: `connection` asks the cluster, `crew` knows its
workers, `shipment` sends them what the ledger doesn't have, cut into `jobs` by prefix. `worker` is what runs there: an
ordinary client on the same ledger and budget. Knows nothing of prompts, regions or methods.
"""
