"""From chunks to batches: order, cache, reading, augmentation, collating."""
