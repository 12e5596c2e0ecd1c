"""The frame that sender and listener share."""
