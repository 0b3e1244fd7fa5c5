"""Connections to PostgreSQL: how they are made, checked, migrated and listened on."""
