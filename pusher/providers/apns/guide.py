"""Help for setting up an app for Apple: the questions of ``pusher init apns``, and the meaning of refusals."""

from __future__ import annotations

from pusher.providers.apns import settings
from pusher.providers.provider import Question

QUESTIONS = (
    Question(settings.AUTH_KEY_PATH, "key", "path of the .p8 key that Apple's developer site hands out", is_path=True),
    Question(
        settings.KEY_ID, "key-id", "id of the key, ten characters; Apple's developer site shows it beside the key"
    ),
    Question(
        settings.TEAM_ID, "team-id", "id of the team, ten characters; Apple's developer site shows it under Membership"
    ),
    Question(settings.TOPIC, "topic", "bundle id of the app, such as com.example.game"),
)

NOTE = (
    "Without --production pushes go to Apple's sandbox, which serves builds that Xcode installed. With --production "
    "they go to builds from TestFlight and the App Store."
)

_ENVIRONMENT = (
    "a build that Xcode installed has a sandbox token (send without --production), a build from TestFlight or the App "
    "Store has a production token (send with --production)"
)
_ENVIRONMENT_OF_KEY = "the key is limited to the other environment: send with, or without, --production"
_KEY = "key, key id and team id do not belong together, or the key was revoked"

HINTS = {
    "BadDeviceToken": f"the device token does not belong to this environment: {_ENVIRONMENT}",
    "BadEnvironmentKeyIdInToken": _ENVIRONMENT_OF_KEY,
    "BadEnvironmentKeyInToken": _ENVIRONMENT_OF_KEY,
    "DeviceTokenNotForTopic": "the device token belongs to an app whose bundle id is not the topic",
    "InvalidProviderToken": _KEY,
    "TopicDisallowed": "the team of the key does not own the app whose bundle id is the topic",
    "Unregistered": "the app was removed from the device: install and start it again and use its new token",
    "ExpiredToken": "the device token is too old: start the app again and use its new token",
}
