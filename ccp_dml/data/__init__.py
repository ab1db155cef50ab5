"""Image collections, class splits, samplers, preprocessing and input pipelines."""
