"""Scriptable providers on loopback: for the demo, the tests, the bench, and for trying things without Apple or Google.

They enforce the providers' published rules and misbehave on request. Nothing here imports the sender's own code, so
that an error in the sender's protocol code cannot hide behind the same error in the simulator.
"""

#: Each is a module of that name.
SIMULATORS = {"apns": "Apple's APNs", "gcm": "Google's XMPP service", "fcm": "Google's FCM HTTP v1"}
