"""Several devices: replicas, worker processes, shards of proxies, and the cluster that they form."""
