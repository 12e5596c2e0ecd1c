"""The stores from which dead tokens are deleted; each is a door of ``pusher.tokens``."""
