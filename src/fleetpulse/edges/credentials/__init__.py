"""Certificates, passwords and the files that hold them."""
