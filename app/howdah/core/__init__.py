"""The kernel that API, worker and scheduler share."""
