"""Notification channels: Alertmanager, Slack, webhooks."""
