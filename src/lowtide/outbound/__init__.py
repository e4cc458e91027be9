"""Adapter of the sender port: calls to addresses that tenants name, checked and bounded."""
