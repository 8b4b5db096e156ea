//! Counts for Prometheus.
