"""One module per schema: what changes from the one before."""
