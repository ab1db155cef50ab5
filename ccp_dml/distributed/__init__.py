"""Several devices: replicas, worker processes, shards of proxies, and the cluster that they form.

Every word has one meaning here:

- A *worker* is a process. The *chief* is worker 0; only the chief writes files.
- A *replica* is a device of the `tf.distribute` strategy, with its copy of the model. A worker has one or
  more of them.
- *Local* means of this worker, such as its local replicas or its local slice of the images.
- A *table* holds the proxies of all classes. It is *sharded* if its classes are divided among the replicas; a
  *shard* is what one replica holds of it.
- *Per-replica* state is a variable of which every replica changes its own copy.
"""
