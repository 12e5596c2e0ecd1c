"""Everything about the providers of push services."""
