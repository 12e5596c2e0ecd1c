"""Google's FCM HTTP v1: a push made into its request, its answers read, the app's access token kept fresh."""
