"""What dead tokens are deleted from: each store stands behind its door in ``pusher.tokens``."""
