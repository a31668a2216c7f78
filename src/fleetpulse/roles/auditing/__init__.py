"""The steps of an audit: what should be there, what is there, and what differs."""
