"""The checks of `doctor`, each a function from what is known so far to a verdict."""
