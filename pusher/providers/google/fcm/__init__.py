"""Google's FCM HTTP v1: builds requests from pushes, reads answers, and keeps the app's access token current."""
