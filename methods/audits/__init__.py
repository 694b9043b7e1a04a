"""Questions asked of trained methods, from their saved models; see ``command``."""
