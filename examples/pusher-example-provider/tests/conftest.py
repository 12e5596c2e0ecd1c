"""gevent patches the standard library before anything else is imported: the server of the tests runs on it."""

from gevent import monkey

monkey.patch_all()
