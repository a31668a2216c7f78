"""One process each: a straight line of edges and pure steps."""
