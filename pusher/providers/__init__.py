"""Everything about the providers of push services, behind one door."""
