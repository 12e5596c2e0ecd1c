"""Errors that end a command before or instead of its work: one clear line each, no stack trace."""


class StartError(Exception):
    """The command cannot start. The text says what, where and how to correct it."""


class CredentialError(StartError):
    """An app's credentials cannot be used."""
