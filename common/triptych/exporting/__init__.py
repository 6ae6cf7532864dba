"""A spec with its weights as somebody else's file."""
