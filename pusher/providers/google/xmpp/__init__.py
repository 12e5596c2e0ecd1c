"""Google over XMPP, and the push request that its successor FCM reads as well."""
