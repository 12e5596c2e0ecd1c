"""Google as a provider: FCM HTTP v1, and XMPP for apps that have a sender id."""
