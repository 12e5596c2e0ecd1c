"""How many pushes a device gets: a rate limit for each device and minute, and duplicates, both counted in Redis.

Off unless configured; then nothing of it is imported but the settings.
"""
