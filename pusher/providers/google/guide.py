"""Help for setting up an app for Google: the questions of ``pusher init fcm``, and the meaning of refusals."""

from __future__ import annotations

from pusher.providers.google import settings
from pusher.providers.provider import Question

FCM_QUESTIONS = (
    Question(
        settings.FIREBASE_CREDENTIALS,
        "credentials",
        "path of the service account's JSON (Firebase console, Project settings, Service accounts)",
        is_path=True,
    ),
)

NOTE = "Google has no sandbox: --production changes nothing for FCM."

HINTS = {
    "DEVICE_UNREGISTERED": "the app was removed from the device, or its token was replaced: use its new token",
    "INVALID_REGISTRATION": "this is not a registration token: copy it from the app, without spaces or line ends",
    "SENDER_ID_MISMATCH": "the registration token belongs to a different Firebase project than the service account",
    "THIRD_PARTY_AUTH_ERROR": "the device is an Apple device, and the Firebase project has no valid APNs key for it",
}
