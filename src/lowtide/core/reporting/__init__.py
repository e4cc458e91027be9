"""What tenants, logs and metrics are told about batches and replicas."""
