"""gevent patches the standard library before anything else is imported, as in the process of pusher."""

from gevent import monkey

monkey.patch_all()
