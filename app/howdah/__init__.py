"""Howdah: a job queue service that rides on PostgreSQL."""
