"""Delta tables, dataset manifests and digest-addressed blobs."""
