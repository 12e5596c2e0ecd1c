"""The additional commands for Apple, beside ``pusher apns``."""

from pusher.providers.command import ProviderCommand

CHANNELS = ProviderCommand(
    "create, list or delete Apple's broadcast channels of an app",
    "pusher.providers.apns.channels:run",
    "pusher.providers.apns.channels:add_arguments",
)
