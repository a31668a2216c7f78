"""Pinned jars: fetched with Ivy into the cache of the user, checked against the lock on use."""
